"""Nets that call torchdiffeq, each written in one of the ways in which published code writes them."""

from typing import Any

import torch
import torchdiffeq
from torch import nn
from torchdiffeq import odeint
from torchdiffeq import odeint_adjoint as odeint_with_adjoint

SIZE = 8
"""Images are 8x8 and batches have 8 rows in places: times of shape (8,) then broadcast along the width."""


class ConcatConv(nn.Module):
    """The usual field: the time as one more channel, made by multiplying with ones."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv1 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.norm = nn.GroupNorm(2, channels)
        self.nfe = 0

    def forward(self, t, x):
        self.nfe += 1
        time = torch.ones_like(x[:, :1]) * t
        x = self.conv1(torch.cat([time, torch.tanh(self.norm(x))], 1))
        return self.conv2(torch.cat([time, torch.tanh(x)], 1)) * 3


class ByModuleAttribute(nn.Module):
    """Calls torchdiffeq.odeint, twice, at several times."""

    def __init__(self):
        super().__init__()
        self.stem, self.field1, self.field2 = nn.Conv2d(1, 4, 3, padding=1), ConcatConv(), ConcatConv()
        self.head = nn.Linear(4, 3)
        self.tolerance = 1e-3

    def forward(self, images):
        options = {"rtol": self.tolerance, "atol": self.tolerance, "method": "dopri5"}
        times = torch.tensor([0.0, 0.4, 1.0]).to(images)
        path: Any = torchdiffeq.odeint(self.field1, self.stem(images), times, **options)
        back: Any = torchdiffeq.odeint(self.field2, path[1] + path[2], times.flip(0), **options)
        return self.head(back[-1].mean((2, 3)))


class ByName(nn.Module):
    """Has imported odeint by name and leaves the method to its default; its field gates the state by the scalar time."""

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.gate = nn.Linear(SIZE, SIZE), nn.Linear(1, SIZE)

        def forward(self, t, x):
            return torch.tanh(self.layer(x)) * 4 * torch.sigmoid(self.gate(t.view(1, 1)))

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(SIZE * SIZE, SIZE), nn.Linear(SIZE, 3)
        self.field: Any = self.Field()
        self.tolerance = 1e-3

    def forward(self, images):
        start = self.stem(images.flatten(1))
        end = odeint(self.field, start, torch.tensor([0.0, 1.0]).to(images), rtol=self.tolerance, atol=self.tolerance)[
            1
        ]
        return self.head(end)


class ByAdjointOfATuple(nn.Module):
    """Integrates a state with its kinetic energy, by the adjoint."""

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(SIZE, SIZE)

        def forward(self, t, state):
            x, _ = state
            slope = torch.tanh(self.layer(x)) * 3 * torch.cos(2 * t)
            return slope, slope.square().sum(1, keepdim=True)

    def __init__(self):
        super().__init__()
        self.stem, self.field, self.head = nn.Linear(SIZE * SIZE, SIZE), self.Field(), nn.Linear(SIZE + 1, 3)
        self.tolerance = 1e-3

    def forward(self, images):
        start = self.stem(images.flatten(1))
        times = torch.tensor([0.0, 1.0]).to(images)
        pair = (start, torch.zeros_like(start[:, :1]))
        # Without a method, as most users write it.
        x, energy = odeint_with_adjoint(
            self.field, pair, times, rtol=self.tolerance, atol=self.tolerance, adjoint_rtol=self.tolerance / 10
        )
        return self.head(torch.cat([x[1], energy[1]], 1))


class ODEBlock(nn.Module):
    """A layer that solves from 0 to 1 as it is told, with some channels of zeros more than it gets."""

    def __init__(self, field, adjoint=False, augment=0, **how):
        super().__init__()
        self.field, self.augment, self.how = field, augment, {"rtol": 1e-3, "atol": 1e-3} | how
        self.solve = odeint_with_adjoint if adjoint else odeint

    def forward(self, x):
        more = x.new_zeros(len(x), self.augment, *x.shape[2:])
        path: Any = self.solve(self.field, torch.cat([x, more], 1), torch.tensor([0.0, 1.0]).to(x), **self.how)
        return path[-1]


def by_arguments(width=4, augment=0, classes=3, **how):
    """A net put together from arguments: nn.Sequential with an ODE block among its layers."""
    return nn.Sequential(
        nn.Conv2d(1, width - augment, 3, padding=1),
        ODEBlock(ConcatConv(width), augment=augment, **how),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


class ByTupleBackwards(nn.Module):
    """The state with an integral beside it whose part has one number for each image, from 1 back to 0."""

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(SIZE, SIZE)

        def forward(self, t, state):
            slope = torch.tanh(self.layer(state[0])) * torch.cos(3 * t)
            return slope, slope.square().mean(1)

    def __init__(self):
        super().__init__()
        self.stem, self.field, self.head = nn.Linear(SIZE * SIZE, SIZE), self.Field(), nn.Linear(SIZE + 1, 3)

    def forward(self, images):
        start = self.stem(images.flatten(1))
        times = torch.tensor([1.0, 0.3, 0.0]).to(images)
        path: Any = odeint(self.field, (start, torch.zeros_like(start[:, 0])), times, rtol=1e-4, atol=1e-4)
        return self.head(torch.cat([path[0][-1] + path[0][1], path[1][-1, :, None]], 1))


class OfNeighbours(nn.Module):
    """Batch norm that keeps no statistics, in the field: an image's slope depends on the others'."""

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(SIZE, SIZE), nn.BatchNorm1d(SIZE, track_running_stats=False)

        def forward(self, t, x):
            return torch.tanh(self.norm(self.layer(x))) + t

    def __init__(self):
        super().__init__()
        self.stem, self.field, self.head = nn.Linear(SIZE * SIZE, SIZE), self.Field(), nn.Linear(SIZE, 3)

    def forward(self, images):
        times = torch.tensor([0.0, 1.0]).to(images)
        path: Any = odeint(self.field, self.stem(images.flatten(1)), times, rtol=1e-3, atol=1e-3)
        return self.head(path[-1])


class OfTwice(nn.Module):
    """Solves each image and its negative, one after the other in one batch."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2 * SIZE * SIZE, 3)

    def forward(self, images):
        both = torch.cat([images, -images]).flatten(1)
        path: Any = odeint(
            lambda t, x: torch.sin(3 * x + t), both, torch.tensor([0.0, 1.0]).to(images), rtol=1e-3, atol=1e-3
        )
        return self.head(torch.cat(path[-1].chunk(2), 1))


class Fixed(nn.Module):
    """Steps of one size."""

    def __init__(self, method, **options):
        super().__init__()
        self.head, self.how = nn.Linear(SIZE * SIZE, 3), {"method": method, "options": options or None}
        self.end = 1.0

    def forward(self, images):
        def field(t, x):
            return torch.sin(x * 3 + t)

        start, times = images.flatten(1), torch.tensor([0.0, 0.5, self.end]).to(images)
        return self.head(odeint(field, start, times, rtol=1e-3, atol=1e-3, **self.how)[-1])


class LearnedEnd(nn.Module):
    """The time at which it ends is a parameter."""

    def __init__(self):
        super().__init__()
        self.end, self.head = nn.Parameter(torch.ones(1)), nn.Linear(SIZE * SIZE, 3)

    def forward(self, images):
        times = torch.cat([torch.zeros_like(self.end), self.end])
        path: Any = odeint(lambda t, y: -y, images.flatten(1), times)
        return self.head(path[-1])


class Closure(nn.Module):
    """Its field is a lambda, whose parameters nobody can see."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(SIZE * SIZE, SIZE * SIZE), nn.Linear(SIZE * SIZE, 3)

    def forward(self, images):
        times = torch.tensor([0.0, 1.0]).to(images)
        path: Any = odeint(lambda t, y: torch.tanh(self.layer(y)), images.flatten(1), times, rtol=1e-3, atol=1e-3)
        return self.head(path[-1])


class TwoSolves(nn.Module):
    """The first solve explodes for bright images."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(SIZE * SIZE, 3)

    def forward(self, images):
        times = torch.tensor([0.0, 1.0]).to(images)
        first: Any = odeint(lambda t, y: 4 * y**2, images.flatten(1), times)
        second: Any = odeint(lambda t, y: -y, images.flatten(1), times)
        return self.head(first[-1].clamp(-1, 1) + second[-1])
