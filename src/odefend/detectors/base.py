"""The Detector noun: a number for each image, higher = more suspicious."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from odefend.errors import InvalidInput, NotFitted
from odefend.models import ImageModel, Prediction, check_evaluating, check_ids, check_images
from odefend.tensors import Images, OtherImages, PerImage

Fitted = TypeVar("Fitted", bound="Detector")

MOST = 1e30
"""The score of an image that the net, where it is asked, gives no answer for: more suspicious than any other, and finite."""


class Detector(ABC):
    """Scores images by how much they look attacked, beside a net; a threshold is set on clean scores for a false-alarm rate:
    see `Calibration`.

    A detector is a dataclass of `net` and its settings. One that `learns` must be fitted before it scores, one that is
    `supervised` on attacked images as well. What was learned is in `learned`, tensors by name, and nowhere else.
    """

    learns: ClassVar[bool] = False
    supervised: ClassVar[bool] = False
    of_solver: ClassVar[bool] = False
    """Whether it watches the net's solver, and so needs an ODE net."""

    net: Any
    """The Classifier beside it; for those that watch a solver, an ODE net."""

    learned: dict[str, Tensor] | None = None

    def fit(self: Fitted, clean: Images, attacked: OtherImages | None = None) -> Fitted:
        """Learn from clean images, and from attacked ones where the detector is supervised; returns itself.

        Detectors that learn nothing need not be fitted. Raises InvalidInput where a supervised one gets no attacked images.
        """
        if not self.learns:
            return self
        self._check_nets()
        check_images(clean, self.net.in_channels)
        if self.supervised and (attacked is None or not len(attacked)):
            raise InvalidInput(f"{type(self).__name__}: expected attacked images to learn from too, got none.")
        if attacked is not None and attacked.shape[1:] != clean.shape[1:]:
            raise InvalidInput(
                f"attacked: expected images {_size(clean)} as the clean ones are, got {_size(attacked)}."
            )
        size = torch.tensor(clean.shape[1:])
        self.learned = self.learn(clean.detach(), None if attacked is None else attacked.detach()) | {"size": size}
        return self

    def score(self, images: Images, ids: Sequence[str]) -> PerImage:
        """One number per image, higher = more suspicious, finite; `ids` decide the random draws.

        Differentiable in the images wherever the score itself is, and by a stand-in where it is not (BPDA), so that an
        attacker who knows the detector can be tried: see `odefend.attacks.Guard`. Call it under `torch.no_grad()` otherwise.

        Raises NotFitted where something has to be learned first, and InvalidInput for images of another size or number of
        channels than it was learned from, ids that are not strings, and nets in training mode.
        """
        self._check_nets()
        check_images(images, self.net.in_channels)
        check_ids(ids, len(images))
        if self.learns:
            if self.learned is None:
                raise NotFitted(f"{type(self).__name__} has learned nothing yet. Call fit(clean images) first.")
            if tuple(self.learned["size"].tolist()) != tuple(images.shape[1:]):
                size = " x ".join(map(str, self.learned["size"].tolist()))
                raise InvalidInput(f"images: expected {size} as {type(self).__name__} learned, got {_size(images)}.")
        score = self.suspicion(images, ids)
        return torch.where(torch.isfinite(score), score, MOST)

    def _check_nets(self) -> None:
        check_evaluating(*(net for net in (self.net, *self.beside.values()) if isinstance(net, torch.nn.Module)))

    @abstractmethod
    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:
        """The score of images that have been checked; where it is not finite, MOST takes its place."""

    def learn(self, clean: Images, attacked: OtherImages | None) -> dict[str, Tensor]:  # noqa: ARG002
        """What there is to learn from images that have been checked, as tensors by name."""
        return {}

    def redrawn(self, draws: int) -> "Detector":  # noqa: ARG002
        """What an attacker who does not see its random draws can follow in its place: the same score of other draws, at most so
        many; itself where nothing is drawn."""
        return self

    @property
    def state(self) -> dict[str, Tensor]:
        """What was learned, where there is anything."""
        assert self.learned is not None  # `score` has seen to it
        return self.learned

    @property
    def beside(self) -> Mapping[str, ImageModel]:
        """Trained models of images that it asks, by what they are for."""
        return {}

    @property
    def cost(self) -> int:
        """Passes through the net for one score; 0 where it is not asked."""
        return 1


def or_most(score: PerImage, *said: Prediction) -> PerImage:
    """The score where the net answered each time, MOST elsewhere."""
    answered = torch.stack([one.answered for one in said]).all(0)
    return torch.where(answered, score, MOST)


def _size(images: Any) -> str:
    return " x ".join(map(str, images.shape[1:]))
