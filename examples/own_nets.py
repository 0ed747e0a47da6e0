"""Nets, data, an attack, a defense and a detector of one's own, as examples/own-nets.toml names them."""

from dataclasses import dataclass

import torch
import torchdiffeq
from torch import nn

import odefend
from odefend.attacks import FGSM
from odefend.detectors import Detector


class Field(nn.Module):
    """dx/dt: any module that takes t and x."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, t, x):
        return torch.tanh(self.layer(x)) + 0 * t


class ODENet(nn.Module):
    """A Neural ODE as one would write it with torchdiffeq."""

    def __init__(self, width=8):
        super().__init__()
        self.stem, self.field, self.head = nn.Conv2d(1, width, 3, padding=1), Field(width), nn.Linear(width, 10)

    def forward(self, images):
        states = torchdiffeq.odeint(self.field, self.stem(images), torch.tensor([0.0, 1.0]), rtol=1e-3, atol=1e-3)
        return self.head(states[-1].mean((2, 3)))


def ode(width=8, seed=0):
    """The net; yours would load its weights here."""
    torch.manual_seed(seed)
    return ODENet(width)


def cnn(seed=0):
    """A net without a solver, which takes normalized images."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def images(split, count=40):
    """Images (N, C, H, W) in [0, 1] and their labels; here, what the first net says of them."""
    some = odefend.digits(split)[:count].images
    with torch.no_grad():
        return some, ode()(some).argmax(1)


@dataclass(frozen=True)
class HalfStep(FGSM):
    """An attack of one's own: FGSM by half the radius."""

    def perturb(self, problem, rows):
        clean = problem.images[rows]
        return clean + super().perturb(problem, rows).sub(clean).clamp(-self.epsilon / 2, self.epsilon / 2)


@dataclass(frozen=True)
class Darker:
    """A defense of one's own: a classifier in, a classifier out."""

    factor: float = 0.9

    def __call__(self, net):
        return odefend.as_classifier(_Darker(net, self.factor), in_channels=net.in_channels, size=8)


class _Darker(nn.Module):
    def __init__(self, net, factor):
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, images):
        return self.net(images * self.factor)


@dataclass(eq=False)
class Brightness(Detector):
    """A detector of one's own: higher is more suspicious."""

    net: odefend.Classifier

    def suspicion(self, images, ids):  # noqa: ARG002
        return images.flatten(1).mean(1)
