"""Toy nets with known answers."""

import torch
from torch import nn

from odefend.models import Classifier, ODENet, Prediction
from odefend.models.classifier import no_work
from odefend.models.layers import ODEField, convolution_stem, pooling_head
from odefend.tensors import Images


class Linear(Classifier):
    """Logits are a linear function of the pixels, so distances to the decision boundary are known."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, channels: int = 1) -> None:
        super().__init__(channels, len(weight))
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def classify(self, images: Images) -> Prediction:
        return no_work(images.flatten(1) @ self.weight.T + self.bias)


def small_ode_net(width: int = 8, classes: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0) -> ODENet:
    """An untrained ODE net whose solves differ from image to image."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ODENet(
            convolution_stem(1, width), ODEField(width), pooling_head(width, classes), in_channels=1, classes=classes
        )
    return net.to(dtype).eval()


def pictures(count: int, size: int = 8, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    """Images of quite different contrast."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((count, 1, size, size), generator=generator, dtype=torch.float64)
    contrast = torch.linspace(0.05, 1, count, dtype=torch.float64).view(-1, 1, 1, 1)
    return (images * contrast).to(dtype)


def counted(field):
    """A field for torchdiffeq, which gives one time, and a list with the number of its calls."""
    calls = [0]

    def f(t, y):
        calls[0] += 1
        return field(t.view(-1), y)

    return f, calls


def same_in_any_batch(attack, net, data):
    """Assert that what an attack finds for an image depends neither on the order nor on the others."""
    some, order = data[:6], [4, 0, 5]
    together, part = attack(net, some.images, some.labels, ids=some.ids), data[order]
    alone = attack(net, part.images, part.labels, ids=part.ids)
    assert torch.equal(alone.images, together.images[order])
    assert torch.equal(alone.gradient_calls, together.gradient_calls[order])
    assert torch.equal(alone.history, together.history[order])


class Projection:
    """A detector that scores the second and third pixel together."""

    def score(self, images, ids):
        return images.flatten(1)[:, 1:3].sum(1)


def watched():
    """A linear net of two classes, a + b >= 1.2 being the second, and three images of it in the middle of the box."""
    weight = torch.zeros(2, 64, dtype=torch.float64)
    weight[1, :2] = 1.0
    return Linear(weight, torch.tensor([0.0, -1.2], dtype=torch.float64)).eval(), torch.full(
        (3, 1, 8, 8), 0.5, dtype=torch.float64
    )
