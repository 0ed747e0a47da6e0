"""Neural ODEs for the study of integration time, with random pooling (the nets of the end-time table in Girard et al.,
2019, taken from a blog post by its author rajatvd, "Neural ODE Adversarial", 2019)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odefend.errors import InvalidInput
from odefend.models.classifier import Prediction
from odefend.models.layers import Normalize, check_width, group_norm
from odefend.models.odenet import ODENet
from odefend.models.resnet import ResNet
from odefend.rng import content_ids, uniform
from odefend.tensors import Images, State

POOLED = 7


class StillField(nn.Module):
    """f(x), the same at all times: four times GN, ReLU and a convolution, and a last GN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(group_norm(channels) for _ in range(5))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(4))

    def forward(self, t: Tensor, x: State) -> State:  # noqa: ARG002
        """dx/dt."""
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = conv(F.relu_(norm(x)))
        return self.norms[4](x)


class StillResidual(StillField):
    """x + f(x)."""

    def forward(self, x: State) -> State:  # type: ignore[override]
        """The state after the block."""
        return x + super().forward(x.new_zeros(len(x)), x)


class RandomPool(nn.Module):
    """Fractional max pooling to 7x7, whose regions are random for each image and channel (arXiv 1412.6071).

    In evaluation too, as published, but there the draw is a function of the image's own content.
    """

    def forward(self, x: State, images: Images) -> State:
        """The pooled state of these images."""
        if self.training:
            samples = torch.rand(*x.shape[:2], 2, dtype=x.dtype, device=x.device)
        else:
            drawn = uniform(0, content_ids(images), "fractional pooling", shape=(x.shape[1], 2))
            samples = drawn.to(x)
        return F.fractional_max_pool2d(x, 2, output_size=POOLED, _random_samples=samples)


class RandomPoolStem(nn.Module):
    """Pixels in [-0.5, 0.5] -> convolution -> batch norm -> random pooling."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.centre = Normalize([0.5] * in_channels, [1.0] * in_channels)
        self.conv, self.norm = nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width)
        self.pool = RandomPool()

    def forward(self, images: Images) -> State:
        """The state at t = 0."""
        return self.pool(self.norm(self.conv(self.centre(images))), images)


class EndTimeNet(ODENet):
    """An ODE net that may be trained with an end time drawn for each batch."""

    def __init__(self, *parts: nn.Module, ends: tuple[float, float], in_channels: int, classes: int) -> None:
        super().__init__(*parts, in_channels=in_channels, classes=classes)
        self.ends = ends
        self.settings = self.settings.at(t1=ends[1])

    def classify(self, images: Images) -> Prediction:
        first, last = self.ends
        if not self.training or first == last:
            return super().classify(images)
        return ODENet.classify(self.at(t1=first + (last - first) * torch.rand(()).item()), images)


def end_time(
    in_channels: int = 1, width: int = 16, classes: int = 10, ends: Sequence[float] = (1.0, 1.0)
) -> EndTimeNet:
    """Images of at least 14x14 pixels -> random pooling -> ODE block with a field of no time -> a linear layer.

    `ends`: in training, each batch's end time is uniform between these two; the net then solves up to the second unless
    told otherwise (`net.at(t1=...)`). Parameters: 17,418 at width 16 ("small"), 655,370 at 128 ("large").
    """
    check_width(width)
    first, last = ends if len(ends) == 2 else (0.0, 0.0)
    if not 0 < first <= last:
        raise InvalidInput(f"ends: expected two end times, 0 < first <= last, got {ends}.")
    parts = RandomPoolStem(in_channels, width), StillField(width), _head(width, classes)
    return EndTimeNet(*parts, ends=(first, last), in_channels=in_channels, classes=classes)


def end_time_matched(in_channels: int = 1, width: int = 16, classes: int = 10) -> ResNet:
    """The same with one residual block of the field's shape in the ODE block's place."""
    check_width(width)
    parts = RandomPoolStem(in_channels, width), StillResidual(width), _head(width, classes)
    return ResNet(*parts, in_channels=in_channels, classes=classes)


def _head(width: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(POOLED * POOLED * width, classes))
