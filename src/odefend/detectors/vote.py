"""The tolerance vote of Carrara et al. (ICPR-W 2020): solve at V random tolerances and count the largest agreement.

Their rule accepts an image whose largest agreeing group v_agree has at least v_min votes. Beside it stands the control: as many
passes under input noise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F

from odefend.attacks import straight_through
from odefend.attacks.problem import padded_batches
from odefend.defenses import InputNoise, RandomTolerance
from odefend.detectors.base import Detector
from odefend.errors import InvalidInput
from odefend.models import Classifier, Prediction, Solving
from odefend.tensors import Counts, Images, Mask, PerImage

ABSTAINED = -1
"""The vote of a solve that failed."""


def agreement(votes: torch.Tensor) -> Counts:
    """v_agree: size of the largest group of equal votes in each row of (images, V); abstentions agree with nobody."""
    equal = votes[:, :, None] == votes[:, None, :]
    return (equal & (votes != ABSTAINED)[:, :, None]).sum(2).amax(1)


@dataclass(frozen=True)
class Outcome:
    """Whether each image is accepted, after how many solves of how many evaluations of the field that was settled, and how
    many solves were counted in all."""

    accepted: Mask
    solves: Counts
    nfe: Counts


@dataclass(eq=False)
class Vote(Detector):
    """Score V - v_agree of V answers of the net behind a `defense` that draws: 0 where all agree."""

    net: Any
    votes: int = 20
    defense: Any = None

    def __post_init__(self) -> None:
        if self.votes < 2:
            raise InvalidInput(f"votes: expected at least 2, got {self.votes}.")

    @torch.no_grad()
    def ballots(self, images: Images, ids: Sequence[str]) -> torch.Tensor:
        """The label each answer gives, (images, V), ABSTAINED where there is none."""
        return torch.stack([_ballot(said) for said in self._said(images, ids)], 1)

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:
        """V - v_agree; its gradient is that of V minus the sum of the probabilities that the answers give to the label of the
        largest group."""
        if not (torch.is_grad_enabled() and images.requires_grad):
            return (self.votes - agreement(self.ballots(images, ids))).double()
        said = list(self._said(images, ids))
        ballots = torch.stack([_ballot(one) for one in said], 1)
        shares = torch.stack([one.logits.softmax(1) for one in said]).sum(0)
        agreed = shares.gather(1, _largest_group(ballots)[:, None])[:, 0]
        return straight_through(self.votes - agreement(ballots), self.votes - agreed)

    def _said(self, images: Images, ids: Sequence[str]) -> Iterator[Prediction]:
        net = self.defense(self.net)
        return (net.draw(ids, index).predict(images) for index in range(self.votes))

    def accepts(self, images: Images, ids: Sequence[str], v_min: int) -> Mask:
        """Whether at least `v_min` of the votes agree."""
        return self.score(images, ids) <= self.votes - v_min

    def redrawn(self, draws: int) -> "Vote":
        """As said there, but by two answers at least, since one alone always agrees with itself."""
        other = replace(self.defense, seed=self.defense.seed + 1)
        return _Sample(self.net, max(2, min(draws, self.votes)), other, of=self.votes)

    @property
    def cost(self) -> int:
        return self.votes


@dataclass(eq=False)
class ToleranceVote(Vote):
    """The vote of V solves at random tolerances."""

    of_solver = True
    net: Solving
    defense: RandomTolerance = field(default_factory=RandomTolerance)

    @torch.no_grad()
    def settled(self, images: Images, ids: Sequence[str], v_min: int) -> Outcome:
        """What `accepts` says, of the same draws, with no more solves than it takes: each image's draws are counted from the
        loosest tolerance, which is the cheapest, to the tightest, until `v_min` agree or can no longer."""
        drawn = [self.defense.distribution.draw(self.defense.seed, ids, index) for index in range(self.votes)]
        tolerances = torch.stack(drawn, 1).sort(1, descending=True).values.to(images.device)
        counts = images.new_zeros(len(images), self.net.classes, dtype=torch.int64)
        solves, nfe = counts.new_zeros(len(images)), counts.new_zeros(len(images))
        open_rows = torch.arange(len(images), device=images.device)
        for index in range(self.votes):
            for rows, batch, size in padded_batches(open_rows, images[open_rows]):
                said, rows = self.net.at(tolerances[rows, index]).predict(batch).first(size), rows[:size]
                counts[rows] += F.one_hot(said.labels, self.net.classes) * said.answered[:, None]
                solves[rows] += 1
                nfe[rows] += said.nfe
            agreed, left = counts[open_rows].amax(1), self.votes - index - 1
            open_rows = open_rows[(agreed < v_min) & (agreed + left >= v_min)]
            if not len(open_rows):
                break
        return Outcome(counts.amax(1) >= v_min, solves, nfe)


@dataclass(eq=False)
class NoiseVote(Vote):
    """The vote of V passes under input noise: what a vote over tolerances, at the same cost, has to beat."""

    net: Classifier
    defense: InputNoise = field(default_factory=lambda: InputNoise(0.1))


@dataclass(eq=False)
class _Sample(Vote):
    """A vote of fewer answers, whose score, proportionally smaller, is told in units of a vote `of` so many."""

    of: int = 20

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:
        return super().suspicion(images, ids) * self.of / self.votes


def _ballot(said: Prediction) -> torch.Tensor:
    return torch.where(said.answered, said.labels, ABSTAINED)


def _largest_group(ballots: torch.Tensor) -> torch.Tensor:
    """The label that most of the votes in each row agree on; 0 where all abstained."""
    # Every abstention is a label of its own, so that they form no group.
    apart = -1 - torch.arange(ballots.shape[1], device=ballots.device)
    grouped = torch.where(ballots == ABSTAINED, apart, ballots)
    counts = (grouped[:, :, None] == grouped[:, None, :]).sum(2) * (ballots != ABSTAINED)
    return ballots.gather(1, counts.argmax(1, keepdim=True))[:, 0].clamp_min(0)
