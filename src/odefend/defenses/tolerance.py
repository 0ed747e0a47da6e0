"""Another solver tolerance than the one attacked, fixed or drawn for each image (Carrara et al., ICPR-W 2020)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from odefend import rng
from odefend.defenses.randomized import RandomizedNet
from odefend.errors import InvalidInput
from odefend.models import Classifier, SolverSettings, Solving, solving
from odefend.tensors import Index, Times


@dataclass(frozen=True)
class LogUniform:
    """A tolerance whose logarithm is uniform between those of `low` and `high` (published: 1e-5 to 1e-1)."""

    low: float = 1e-5
    high: float = 1e-1

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < math.inf:
            raise InvalidInput(f"LogUniform: expected 0 < low <= high, got {self.low} and {self.high}.")

    def draw(self, seed: int, ids: Sequence[str], index: int) -> Times:
        """One tolerance for each image: a function of seed, id and index alone."""
        u = rng.uniform(seed, ids, "tolerance", index)
        return torch.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))


@dataclass(frozen=True)
class FixedTolerance:
    """The defense: a net that solves ODEs in, its view at another tolerance, a float or (rtol, atol), out."""

    tolerance: float | tuple[float, float]

    def __post_init__(self) -> None:
        SolverSettings(tolerance=self.tolerance)  # raises for wrong values

    def __call__(self, net: Classifier) -> Solving:
        return solving(net, type(self).__name__, controlled=True).at(self.tolerance)


@dataclass(frozen=True)
class RandomTolerance:
    """The defense: a net that solves ODEs in, a classifier that solves each image at a random tolerance out."""

    distribution: LogUniform = LogUniform()
    seed: int = 0

    def __call__(self, net: Classifier) -> "RandomToleranceNet":
        return RandomToleranceNet(solving(net, type(self).__name__, controlled=True), self.distribution, self.seed)


class RandomToleranceNet(RandomizedNet):
    """A net with tolerances drawn per image."""

    def __init__(self, net: Solving, distribution: LogUniform, seed: int) -> None:
        super().__init__(net)
        self.net, self.distribution, self.seed = net, distribution, seed

    def rows(self, index: Index) -> "RandomToleranceNet":
        net = self.net.rows(index)
        return self if net is self.net else RandomToleranceNet(net, self.distribution, self.seed)

    def draw(self, ids: Sequence[str], index: int) -> Solving:
        """The view of the net for these images in which each is solved at its tolerance number `index`."""
        return self.net.at(self.distribution.draw(self.seed, ids, index))
