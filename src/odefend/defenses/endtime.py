"""Another end time of the ODE than the one trained with, fixed or drawn for each image (Girard et al., 2019, whose nets are in
`models.endtime`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from odefend import rng
from odefend.defenses.randomized import RandomizedNet
from odefend.errors import InvalidInput
from odefend.models import Classifier, SolverSettings, Solving, solving
from odefend.tensors import Index


@dataclass(frozen=True)
class FixedEndTime:
    """The defense: a net that solves ODEs in, its view that solves up to `t1` out."""

    t1: float

    def __post_init__(self) -> None:
        SolverSettings(t1=self.t1)  # raises for wrong values

    def __call__(self, net: Classifier) -> Solving:
        return solving(net, type(self).__name__).at(t1=self.t1)


@dataclass(frozen=True)
class RandomEndTime:
    """The defense: a net that solves ODEs in, a classifier that solves each image up to a time uniform between `low` and
    `high` out.

    Published are 10 to 100, drawn once for each batch in training; at test time the published nets solve up to one of 1, 10,
    100 and 500 (`FixedEndTime`).
    """

    low: float
    high: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < math.inf:
            raise InvalidInput(f"RandomEndTime: expected 0 < low <= high, got {self.low} and {self.high}.")

    def __call__(self, net: Classifier) -> "RandomEndTimeNet":
        return RandomEndTimeNet(solving(net, type(self).__name__), self)


class RandomEndTimeNet(RandomizedNet):
    """A net with end times drawn per image."""

    def __init__(self, net: Solving, ends: RandomEndTime) -> None:
        super().__init__(net)
        self.net, self.ends = net, ends

    def rows(self, index: Index) -> "RandomEndTimeNet":
        net = self.net.rows(index)
        return self if net is self.net else RandomEndTimeNet(net, self.ends)

    def draw(self, ids: Sequence[str], index: int) -> Solving:
        """The view of the net for these images in which each is solved up to its end time number `index`."""
        drawn = rng.uniform(self.ends.seed, ids, "end time", index)
        return self.net.at(t1=self.ends.low + drawn * (self.ends.high - self.ends.low))
