"""Input transformations as a defense: compress, smooth or coarsen the picture before the net sees it (Guo et al., arXiv
1711.00117)."""

from dataclasses import astuple, dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from odefend.attacks.differentiable import SMOOTH, straight_through
from odefend.data.tamper import tamper, tampering
from odefend.data.tampering_kinds import Splice
from odefend.errors import InvalidInput
from odefend.models import Classifier, Prediction
from odefend.rng import content_ids
from odefend.tensors import Images, Index


@dataclass(frozen=True)
class InputTransform:
    """The defense: every image is rounded to 8 bits and goes through a tampering, such as "jpeg-60-444" or "median-3",
    exactly as `odefend.tamper` does it.

    Gradients are those of its differentiable twin where there is one (JPEG, median, mean), else they pass as if nothing was
    done (BPDA, arXiv 1802.00420), so that an attack on the result is not stopped by rounding alone. Raises UnknownName or
    InvalidInput for a name that is none.
    """

    tampering: str
    seed: int = 0

    def __post_init__(self) -> None:
        if tampering(self.tampering).family == Splice.family:
            raise InvalidInput(
                "tampering: expected one of the picture alone, got a splice, which takes from its neighbours."
            )

    def __call__(self, net: Classifier) -> "TransformedNet":
        return TransformedNet(net, self)

    def apply(self, images: Images) -> Images:
        """The images as the net sees them."""
        pixels = (255 * images.detach().clamp(0, 1)).round().to("cpu", torch.uint8)
        # An image's noise, if it is given any, depends on its content: equal images are one image.
        unique, which = _distinct(pixels)
        changed = tamper(unique, content_ids(unique), self.tampering, seed=self.seed)[which]
        return straight_through(changed.to(images) / 255, self._smooth(images))

    def _smooth(self, images: Images) -> Images:
        how = tampering(self.tampering)
        return SMOOTH[how.family](images, *astuple(how)) if how.family in SMOOTH else images  # type: ignore[call-overload]


@dataclass(frozen=True)
class BitDepth:
    """The defense: every pixel is rounded to the nearest of 2^bits evenly spaced values (bit-depth squeezing: Xu et al., arXiv
    1704.01155; Guo et al., arXiv 1711.00117). Gradients pass as if nothing was done (BPDA, arXiv 1802.00420)."""

    bits: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise InvalidInput(f"bits: expected 1 to 8, got {self.bits}.")

    def __call__(self, net: Classifier) -> "TransformedNet":
        return TransformedNet(net, self)

    def apply(self, images: Images) -> Images:
        """The images as the net sees them."""
        levels = 2**self.bits - 1
        return straight_through((images.clamp(0, 1) * levels).round() / levels, images)


def _distinct(pixels: Tensor) -> tuple[Tensor, Index]:
    """The different pictures, and which of them each one is."""
    return torch.unique(pixels, dim=0, return_inverse=True)


@runtime_checkable
class Transform(Protocol):
    """What changes images, with a gradient."""

    def apply(self, images: Images) -> Images:
        """The images as the net sees them."""
        ...


class TransformedNet(Classifier):
    """A classifier behind an input transformation."""

    def __init__(self, net: Classifier, transform: Transform) -> None:
        super().__init__(net.in_channels, net.classes)
        self.net, self.transform = net, transform
        self.training = net.training

    def rows(self, index: Index) -> "TransformedNet":
        net = self.net.rows(index)
        return self if net is self.net else TransformedNet(net, self.transform)

    def classify(self, images: Images) -> Prediction:
        return self.net.classify(self.transform.apply(images))
