"""The Detector noun: a number for each image, higher = more suspicious."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from odefend.tensors import Images, PerImage


class Detector(ABC):
    """Scores images by how much they look attacked; a threshold is set on clean scores for a false-alarm rate."""

    def fit(self, clean: Images, attacked: Images | None = None) -> "Detector":  # noqa: ARG002
        """Learn from clean images, and from attacked ones where the detector is supervised; returns itself.

        Detectors that learn nothing need not be fitted.
        """
        return self

    @abstractmethod
    def score(self, images: Images, ids: Sequence[str]) -> PerImage:
        """One number per image, higher = more suspicious; `ids` decide the random draws.

        Differentiable in the images wherever the score itself is, and by a stand-in where it is not (BPDA), so that an
        attacker who knows the detector can be tried: see `odefend.attacks.Guard`. Call it under `torch.no_grad()` otherwise.
        """
