"""The tolerance vote of Carrara et al. (ICPR-W 2020): solve at V random tolerances and count the largest agreement.

Their rule accepts an image whose largest agreeing group v_agree has at least v_min votes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from odefend.defenses import RandomTolerance
from odefend.detectors.base import Detector
from odefend.errors import InvalidInput
from odefend.models import ODENet
from odefend.tensors import Counts, Images, Mask, PerImage

ABSTAINED = -1
"""The vote of a solve that failed."""


def agreement(votes: torch.Tensor) -> Counts:
    """v_agree: size of the largest group of equal votes in each row of (images, V); abstentions agree with nobody."""
    equal = votes[:, :, None] == votes[:, None, :]
    return (equal & (votes != ABSTAINED)[:, :, None]).sum(2).amax(1)


@dataclass(frozen=True)
class ToleranceVote(Detector):
    """Score V - v_agree of V solves at random tolerances: 0 where all agree."""

    net: ODENet
    votes: int = 20
    defense: RandomTolerance = field(default_factory=RandomTolerance)

    def __post_init__(self) -> None:
        if self.votes < 2:
            raise InvalidInput(f"votes: expected at least 2, got {self.votes}.")

    @torch.no_grad()
    def ballots(self, images: Images, ids: Sequence[str]) -> torch.Tensor:
        """The label each solve gives, (images, V), ABSTAINED where it failed."""
        net = self.defense(self.net)
        found = []
        for index in range(self.votes):
            prediction = net.draw(ids, index).predict(images)
            found.append(torch.where(prediction.answered, prediction.labels, ABSTAINED))
        return torch.stack(found, 1)

    def score(self, images: Images, ids: Sequence[str]) -> PerImage:
        return (self.votes - agreement(self.ballots(images, ids))).double()

    def accepts(self, images: Images, ids: Sequence[str], v_min: int) -> Mask:
        """Whether at least `v_min` of the votes agree."""
        return self.score(images, ids) <= self.votes - v_min
