"""Another solver tolerance than the one attacked, fixed or drawn for each image (Carrara et al., ICPR-W 2020)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from odefend import rng
from odefend.defenses.randomized import RandomizedNet
from odefend.errors import InvalidInput
from odefend.models import Adapted, Classifier, ODENet, SolverSettings
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
    """The defense: an ODE net, adapted ones included, in, its view at another tolerance, a float or (rtol, atol), out."""

    tolerance: float | tuple[float, float]

    def __post_init__(self) -> None:
        SolverSettings(tolerance=self.tolerance)  # raises for wrong values

    def __call__(self, net: Classifier) -> Classifier:
        if not isinstance(net, ODENet | Adapted):
            raise _no_tolerance(self, net)
        return net.at(self.tolerance)


@dataclass(frozen=True)
class RandomTolerance:
    """The defense: an ODE net in, a classifier that solves each image at a random tolerance out."""

    distribution: LogUniform = LogUniform()
    seed: int = 0

    def __call__(self, net: Classifier) -> "RandomToleranceNet":
        if not isinstance(net, ODENet):
            raise _no_tolerance(self, net)
        return RandomToleranceNet(net, self.distribution, self.seed)


def _no_tolerance(defense: object, net: Classifier) -> InvalidInput:
    return InvalidInput(
        f"{type(defense).__name__}: expected an ODE net, got {type(net).__name__}, whose tolerance it cannot set."
    )


class RandomToleranceNet(RandomizedNet):
    """An ODE net with tolerances drawn per image."""

    def __init__(self, net: ODENet, distribution: LogUniform, seed: int) -> None:
        super().__init__(net)
        self.net, self.distribution, self.seed = net, distribution, seed

    def rows(self, index: Index) -> "RandomToleranceNet":
        net = self.net.rows(index)
        return self if net is self.net else RandomToleranceNet(net, self.distribution, self.seed)

    def draw(self, ids: Sequence[str], index: int) -> ODENet:
        """The view of the net for these images in which each is solved at its tolerance number `index`."""
        device = next(self.net.parameters()).device
        return self.net.at(self.distribution.draw(self.seed, ids, index).to(device))
