"""Detectors that look at how a net's solver went about an image."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from odefend.defenses import RandomTolerance
from odefend.detectors.base import Detector, or_most
from odefend.detectors.baselines import drop
from odefend.errors import InvalidInput
from odefend.models import Solving, solving
from odefend.tensors import Images, OtherImages, PerImage

LEAST = 1e-30
"""An error below this is as good as none, and its logarithm finite."""


@dataclass(eq=False)
class LogitSpread(Detector):
    """How far the logits of solves at several tolerances are from their mean: the root of the mean square."""

    of_solver = True
    net: Solving
    tolerances: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)

    def __post_init__(self) -> None:
        if len(self.tolerances) < 2:
            raise InvalidInput(f"tolerances: expected at least 2, got {self.tolerances}.")

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        said = [self.net.at(tolerance).predict(images) for tolerance in self.tolerances]
        logits = torch.stack([one.logits for one in said])
        return or_most((logits - logits.mean(0)).pow(2).mean((0, 2)).sqrt(), *said)

    @property
    def cost(self) -> int:
        return len(self.tolerances)


@dataclass(eq=False)
class ToleranceDrop(Detector):
    """How far the margin of the net's answer drops at a tolerance drawn at random, on average over `draws`: what `NoiseDrop` is
    for noise, and the least that a vote could ask."""

    of_solver = True
    net: Solving
    draws: int = 1
    defense: RandomTolerance = field(default_factory=RandomTolerance)

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InvalidInput(f"draws: expected at least 1, got {self.draws}.")

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:
        drawn = self.defense(self.net)
        return drop(self.net.predict(images), [drawn.draw(ids, index).predict(images) for index in range(self.draws)])

    def redrawn(self, draws: int) -> "ToleranceDrop":
        other = replace(self.defense, seed=self.defense.seed + 1)
        return replace(self, draws=min(draws, self.draws), defense=other)

    @property
    def cost(self) -> int:
        return 1 + self.draws


@dataclass(eq=False)
class EmbeddedError(Detector):
    """The logarithm of what the solver's accepted steps estimated of their errors, in all.

    Its gradient holds the steps' times and sizes constant.
    """

    of_solver = True
    net: Solving

    def __post_init__(self) -> None:
        solving(self.net, type(self).__name__, controlled=True)

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        steps = self.net.steps(images)
        return torch.where(steps.answered, steps.errors.sum(1).clamp_min(LEAST).log(), torch.nan)


@dataclass(eq=False)
class StepTrace(Detector):
    """How unusual the way of the solver is: the distance after Mahalanobis of the first `steps` accepted steps, their estimated
    errors and sizes in logarithms, and of the number of attempts, from those of clean images.

    The covariance is shrunk after Ledoit and Wolf. A solve with fewer steps repeats its last. The gradient is that of the
    errors alone, with the steps' times and sizes held constant.
    """

    learns = of_solver = True
    net: Solving
    steps: int = 3

    def __post_init__(self) -> None:
        solving(self.net, type(self).__name__, controlled=True)
        if self.steps < 1:
            raise InvalidInput(f"steps: expected at least 1, got {self.steps}.")

    @torch.no_grad()
    def learn(self, clean: Images, attacked: OtherImages | None) -> dict[str, Tensor]:  # noqa: ARG002
        found = self._features(clean)
        found = found[torch.isfinite(found).all(1)]
        if len(found) < 2 * found.shape[1]:
            raise InvalidInput(
                f"clean: expected at least {2 * found.shape[1]} images to estimate a covariance of, got {len(found)}."
            )
        # In units of each feature's own spread: sizes and counts differ by orders of magnitude, which shrinking must not see.
        spread = found.std(0).clamp_min(1e-6)
        shrunk = LedoitWolf().fit((found / spread).numpy())
        return {
            "spread": spread,
            "mean": torch.from_numpy(shrunk.location_),
            "precision": torch.from_numpy(shrunk.precision_),
        }

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        away = self._features(images) / self.state["spread"] - self.state["mean"]
        return ((away @ self.state["precision"]) * away).sum(1)

    def _features(self, images: Images) -> Tensor:
        """(images, 2 steps + 1); NaN where the solve failed."""
        done = self.net.steps(images)
        count = (done.sizes > 0).sum(1, keepdim=True)
        place = torch.arange(self.steps, device=images.device).expand(len(images), -1).minimum(count - 1).clamp_min(0)
        found = torch.cat(
            [
                done.errors.gather(1, place).clamp_min(LEAST).log(),
                done.sizes.gather(1, place).clamp_min(LEAST).log(),
                done.attempts[:, None].double(),
            ],
            1,
        )
        return torch.where(done.answered[:, None], found, torch.nan)
