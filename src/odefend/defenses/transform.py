"""Input transformations as a defense: compress or smooth the picture before the net sees it (Guo et al., arXiv 1711.00117)."""

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from odefend.attacks.differentiable import SMOOTH, straight_through
from odefend.data.tamper import tamper, tampering
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
        tampering(self.tampering)

    def __call__(self, net: Classifier) -> "TransformedNet":
        return TransformedNet(net, self)

    def apply(self, images: Images) -> Images:
        """The images as the net sees them."""
        pixels = (255 * images.detach()).round().to("cpu", torch.uint8)
        # An image's noise, if it is given any, depends on its content: equal images are one image.
        unique, which = _distinct(pixels)
        changed = tamper(unique, content_ids(unique), self.tampering, seed=self.seed)[which]
        return straight_through(changed.to(images) / 255, self._smooth(images))

    def _smooth(self, images: Images) -> Images:
        how = tampering(self.tampering)
        return SMOOTH[how.family](images, *astuple(how)) if how.family in SMOOTH else images  # type: ignore[call-overload]


def _distinct(pixels: Tensor) -> tuple[Tensor, Index]:
    """The different pictures, and which of them each one is."""
    return torch.unique(pixels, dim=0, return_inverse=True)


class TransformedNet(Classifier):
    """A classifier behind an input transformation."""

    def __init__(self, net: Classifier, transform: InputTransform) -> None:
        super().__init__(net.in_channels, net.classes)
        self.net, self.transform = net, transform
        self.train(net.training)

    def rows(self, index: Index) -> "TransformedNet":
        return TransformedNet(self.net.rows(index), self.transform)

    def classify(self, images: Images) -> Prediction:
        return self.net.classify(self.transform.apply(images))
