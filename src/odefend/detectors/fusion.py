"""Several detectors as one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from odefend import rng
from odefend.attacks import straight_through
from odefend.detectors.base import Detector
from odefend.detectors.calibrate import Calibration
from odefend.errors import InvalidInput
from odefend.models import Classifier
from odefend.tensors import Images, OtherImages, PerImage


@dataclass(eq=False)
class Fused(Detector):
    """Minus the sum of the logarithms of the members' p-values (Fisher's statistic), on the clean images it was fitted to.

    The members depend on each other, so Fisher's distribution does not hold: calibrate the sum like any score, on other
    images. Members that learn are fitted beforehand, on other images too.
    """

    learns = True
    net: Classifier
    members: tuple[Detector, ...] = ()

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise InvalidInput(f"members: expected at least 2 detectors, got {len(self.members)}.")

    @torch.no_grad()
    def learn(self, clean: Images, attacked: OtherImages | None) -> dict[str, Tensor]:  # noqa: ARG002
        ids = rng.content_ids(clean)
        return {f"scores {place}": one.score(clean, ids).double().cpu() for place, one in enumerate(self.members)}

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:
        parts = []
        for place, member in enumerate(self.members):
            calibration, score = Calibration(self.state[f"scores {place}"]), member.score(images, ids).double()
            exact = -calibration.p_values(score).log().to(score.device)
            parts.append(straight_through(exact, _slope(calibration, score)) if score.requires_grad else exact)
        return torch.stack(parts).sum(0)

    def redrawn(self, draws: int) -> "Fused":
        members = tuple(one.redrawn(draws) for one in self.members)
        if all(one is member for one, member in zip(members, self.members, strict=True)):
            return self
        other = replace(self, members=members)
        other.learned = self.learned
        return other

    @property
    def cost(self) -> int:
        return sum(member.cost for member in self.members)


def _slope(calibration: Calibration, score: Tensor) -> Tensor:
    """A smooth stand-in for minus the logarithm of a p-value: the score in units of its upper half's spread, which is what
    an exponential tail would make of it."""
    scores = calibration.scores.to(score.device)
    middle = scores[len(scores) // 2]
    return score / (scores[len(scores) // 2 :] - middle).mean().clamp_min(1e-6)
