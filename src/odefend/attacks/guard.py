"""A detector that stands beside the classifier, and an attacker who knows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F

from odefend.errors import InvalidInput, unknown
from odefend.tensors import Images, PerImage

WAYS = ("selective", "orthogonal", "joint")
"""How the gradients of the classifier and of the detector are joined."""


@runtime_checkable
class Scorer(Protocol):
    """What has a detector's `score`."""

    def score(self, images: Images, ids: Sequence[str]) -> PerImage:
        """One number per image, higher = more suspicious; `ids` decide the random draws."""
        ...


@dataclass(frozen=True)
class Guard:
    """A detector that refuses images of a score above `threshold`: an attack that is given one succeeds only where the
    classifier is fooled *and* the score is at most the threshold.

    `scale`: the unit of the score, such as its standard deviation over clean images; its distance to the threshold counts in
        such units as much as a margin of as many logits.
    `way`: how the two gradients are joined. "selective": that of the classifier until it is fooled, and then that of the
        score as long as it refuses. "orthogonal": the same, each without its part along the other, so that a step does not
        undo the last one. Both: Bryniarski et al., arXiv 2106.15023. "joint": the sum of the two as long as the image is
        refused (Carlini & Wagner, arXiv 1705.07263). Where the score is itself a function of the margin the two gradients
        oppose each other up to the boundary, and only the selective way gets across.
    `source`: supplies gradients of the score (default: the detector itself): a stand-in that is differentiable, or draws
        other than those the detector will make.
    """

    detector: Scorer
    threshold: float
    scale: float = 1.0
    way: str = "selective"
    source: Scorer | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise InvalidInput(f"scale: expected a positive number, got {self.scale}.")
        if self.way not in WAYS:
            raise unknown("way", self.way, WAYS)

    def slack(self, images: Images, ids: Sequence[str]) -> PerImage:
        """How far below the threshold the detector's score is, in units of `scale`; negative: refused."""
        return self._slack(self.detector, images, ids)

    def searched(self, images: Images, ids: Sequence[str]) -> PerImage:
        """The same by the source. Raises InvalidInput where that has no gradient in the images."""
        slack = self._slack(self.source or self.detector, images, ids)
        if images.requires_grad and not slack.requires_grad:
            raise InvalidInput(
                f"guard: expected a score that can be differentiated, got {type(self.source or self.detector).__name__}. "
                "Give Guard a differentiable stand-in as source; odefend.attacks.straight_through makes one."
            )
        return slack

    def _slack(self, scorer: Scorer, images: Images, ids: Sequence[str]) -> PerImage:
        return ((self.threshold - scorer.score(images, ids)) / self.scale).to(images)

    def joined(self, image: Images, climb: PerImage, ahead: PerImage, slack: PerImage) -> Images:
        """The gradient to follow in the image, from what is climbed, the classifier's margin and the slack."""
        if self.way == "joint":
            # Slack beyond what is needed would otherwise pull for ever.
            return torch.autograd.grad((climb + slack.clamp_max(0)).sum(), image)[0]
        (first,) = torch.autograd.grad(climb.sum(), image, retain_graph=True)
        (second,) = torch.autograd.grad(slack.sum(), image)
        if self.way == "orthogonal":
            first, second = _without(first, second), _without(second, first)
        refused = ((ahead > 0) & (slack < 0)).view(-1, 1, 1, 1)
        return torch.where(refused, second, first)

    def height(self, climb: PerImage, ahead: PerImage, slack: PerImage) -> PerImage:
        """How high an image is on the way that `joined` leads: which of two candidates is farther, whatever by how much."""
        if self.way == "joint":
            return climb + slack.clamp_max(0)
        # Any refused image is farther than one that does not fool the net, and any accepted one than those.
        level = (ahead > 0).to(climb) * (1 + (slack >= 0).to(climb))
        rises = torch.where(level == 1, slack, climb)
        return 2 * level + rises / (1 + rises.abs())

    def record(self) -> dict[str, Any]:
        """The settings for a ledger row."""
        source = type(self.source).__name__ if self.source else None
        return {
            "detector": type(self.detector).__name__,
            "threshold": self.threshold,
            "scale": self.scale,
            "way": self.way,
            "source": source,
        }


def _without(one: Images, other: Images) -> Images:
    """What is left of one gradient after its part along the other is taken away, image by image."""
    flat, axis = one.flatten(1), F.normalize(other.flatten(1), dim=1)
    return (flat - (flat * axis).sum(1, keepdim=True) * axis).view_as(one)
