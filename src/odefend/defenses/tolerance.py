"""Randomized solver tolerance (Carrara et al., ICPR-W 2020): each image is solved at a tolerance drawn for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from odefend import rng
from odefend.errors import InvalidInput
from odefend.models import Classifier, ODENet, Prediction
from odefend.tensors import Images, Times


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
class RandomTolerance:
    """The defense: an ODE net in, a classifier that solves each image at a random tolerance out."""

    distribution: LogUniform = LogUniform()
    seed: int = 0

    def __call__(self, net: Classifier) -> "RandomToleranceNet":
        if not isinstance(net, ODENet):
            raise InvalidInput(
                f"RandomTolerance: expected an ODE net, got {type(net).__name__}, which has no tolerance."
            )
        return RandomToleranceNet(net, self.distribution, self.seed)


class RandomToleranceNet(Classifier):
    """An ODE net with tolerances drawn per image.

    `draw` gives the deterministic classifier of one draw. Called directly it uses draw 0 with each image's content
    as its id: another picture, another tolerance. An attack on it can therefore keep the picture whose draw happened to
    suit: judge what it finds under fresh draws.
    """

    def __init__(self, net: ODENet, distribution: LogUniform, seed: int) -> None:
        super().__init__(net.in_channels, net.classes)
        self.net, self.distribution, self.seed = net, distribution, seed
        self.train(net.training)

    def draw(self, ids: Sequence[str], index: int) -> ODENet:
        """The view of the net for these images in which each is solved at its tolerance number `index`."""
        device = next(self.net.parameters()).device
        return self.net.at(self.distribution.draw(self.seed, ids, index).to(device))

    def classify(self, images: Images) -> Prediction:
        return self.draw(rng.content_ids(images), 0).classify(images)
