"""Tests of a whole batch: whether its images come from the same distribution as clean ones (Grosse et al., arXiv 1702.06280).

They say nothing of a single image.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from odefend import rng
from odefend.errors import InvalidInput, NotFitted
from odefend.tensors import Images

Fitted = TypeVar("Fitted", bound="BatchTest")


@dataclass(eq=False)
class BatchTest(ABC):
    """A permutation test of two samples: images against the clean ones it was fitted to.

    `permutations`: how many times the two are mixed; the smallest p-value is 1 / (permutations + 1).
    """

    permutations: int = 1000
    seed: int = 0

    reference: Tensor | None = None

    def __post_init__(self) -> None:
        if self.permutations < 1:
            raise InvalidInput(f"permutations: expected at least 1, got {self.permutations}.")

    def fit(self: Fitted, clean: Images) -> Fitted:
        """Remember the clean images to compare with; returns itself."""
        if len(clean) < 2:
            raise InvalidInput(f"clean: expected at least 2 images, got {len(clean)}.")
        self.reference = clean.detach()
        return self

    @torch.no_grad()
    def p_value(self, images: Images) -> float:
        """The share of random splits of both samples that look at least as different as these two, this one included: no
        larger than x with a probability of at most x where `images` come from where the clean ones did.

        Raises NotFitted before `fit`, and InvalidInput for images of another size or fewer than 2.
        """
        if self.reference is None:
            raise NotFitted(f"{type(self).__name__} has nothing to compare with. Call fit(clean images) first.")
        if len(images) < 2 or images.shape[1:] != self.reference.shape[1:]:
            raise InvalidInput(
                f"images: expected at least 2 of shape {tuple(self.reference.shape[1:])}, got {tuple(images.shape)}."
            )
        both = torch.cat([self.reference, images])
        # In an order of their contents, so that the draws below do not depend on the order they came in.
        ids = rng.content_ids(both)
        order = torch.tensor(sorted(range(len(both)), key=ids.__getitem__))
        clean = (order < len(self.reference)).double()
        both = both[order].flatten(1).double().cpu()
        similar = self.similarity(torch.cdist(both, both))
        first = torch.zeros(self.permutations + 1, len(both), dtype=torch.float64)
        first[0] = clean
        generator = rng.stream(self.seed, "both samples", "permutations")
        for row in range(1, self.permutations + 1):
            first[row, generator.permutation(len(both))[: len(self.reference)]] = 1
        found = _differences(similar, first)
        # Sums in another order differ in their last bits: what is equal to that counts as equal.
        return ((found >= found[0] - 1e-12 * found[0].abs()).double().mean()).item()

    @abstractmethod
    def similarity(self, distances: Tensor) -> Tensor:
        """How alike two images at each of these L2 distances are, whose means within and between samples are compared."""


@dataclass(eq=False)
class MMD(BatchTest):
    """The maximum mean discrepancy with a Gaussian kernel (Gretton et al., JMLR 13, 2012), as wide as the median distance."""

    def similarity(self, distances: Tensor) -> Tensor:
        width = distances[distances > 0].median() if bool((distances > 0).any()) else distances.new_ones(())
        return torch.exp(-distances.pow(2) / (2 * width**2))


@dataclass(eq=False)
class EnergyDistance(BatchTest):
    """The energy distance (Szekely & Rizzo, doi 10.1016/j.jspi.2013.03.018)."""

    def similarity(self, distances: Tensor) -> Tensor:
        return -distances


def _differences(similar: Tensor, first: Tensor) -> Tensor:
    """For each row of `first`, which marks one sample: its mean similarity within, plus that of the others within, minus twice
    that between (V-statistics)."""
    second = 1 - first
    sizes = first.sum(1), second.sum(1)
    near = first @ similar
    within, between = (near * first).sum(1), (near * second).sum(1)
    others = ((second @ similar) * second).sum(1)
    return within / sizes[0] ** 2 + others / sizes[1] ** 2 - 2 * between / (sizes[0] * sizes[1])


BATCH_TESTS = {"mmd": MMD, "energy-distance": EnergyDistance}
"""Tests of batches by name."""
