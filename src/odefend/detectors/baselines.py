"""Detectors that cost one pass: what any costlier one has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass

from odefend.detectors.base import Detector
from odefend.models import Classifier
from odefend.tensors import Images, PerImage


@dataclass(frozen=True)
class OnePassMargin(Detector):
    """Minus the gap between the two largest logits: images near a decision boundary are suspicious."""

    net: Classifier

    def score(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        return -self.net.predict(images).margin
