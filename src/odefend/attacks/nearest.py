"""What attacks of smallest norm share: the nearest adversarial image so far, and a last search on the line to the clean one."""

import math
from dataclasses import dataclass

import torch

from odefend.attacks.base import Attack
from odefend.attacks.problem import Problem
from odefend.errors import InvalidInput
from odefend.norms import L2, LINF, Norm
from odefend.tensors import Images, Index, Mask, PerImage


@dataclass(frozen=True)
class NearestAttack(Attack):
    """An attack that looks for the adversarial image nearest in `norm`."""

    norm: Norm = L2

    @property
    def norm_name(self) -> str:
        return self.norm.name

    @property
    def budget(self) -> float | None:
        return None

    def measure(self, delta: Images) -> PerImage:
        return self.norm.size(delta)


class Nearest:
    """The nearest adversarial image found so far, for each of the images at `rows`, by the judge."""

    def __init__(self, problem: Problem, rows: Index, norm: Norm) -> None:
        self.problem, self.rows, self.norm = problem, rows, norm
        self.clean = problem.images[rows]
        self.images = self.clean.clone()
        self.distance = self.clean.new_full((len(rows),), torch.inf)

    def note(self, active: Index, candidates: Images, reached: Mask) -> None:
        """Keep the candidates, for the images at `active`, that the judge was found to take and that are nearer."""
        distance = self.norm.size(candidates - self.clean[active])
        nearer = reached & (distance < self.distance[active])
        self.images[active[nearer]], self.distance[active[nearer]] = candidates[nearer], distance[nearer]

    def judge(self, active: Index, candidates: Images) -> Mask:
        """Ask the judge about candidates and keep what is nearer; where it takes them."""
        reached = self.problem.stand(self.rows[active], candidates).reached
        self.note(active, candidates, reached)
        return reached

    def close(self, steps: int) -> None:
        """Go towards the clean image for as long as the judge is fooled: one step of a tenth of the way, and bisection of where
        that ends, in `steps` answers of the judge for each image that something was found for."""
        (active,) = self.distance.isfinite().nonzero(as_tuple=True)
        if not steps or not len(active):
            return
        clean, way = self.clean[active], self.images[active] - self.clean[active]
        low, high = torch.zeros_like(way[:, 0, 0, 0]), torch.ones_like(way[:, 0, 0, 0])
        share = torch.full_like(low, 0.9)
        for _ in range(steps):
            reached = self.judge(active, (clean + share.view(-1, 1, 1, 1) * way).clamp(0, 1))
            low, high = torch.where(reached, low, share), torch.where(reached, share, high)
            share = (low + high) / 2


def annealed(first: float, last: float, progress: float) -> float:
    """From `first` to `last` along half a cosine, as `progress` goes from 0 to 1."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def farthest(norm: Norm, clean: Images) -> PerImage:
    """The distance of the farthest image in [0, 1]."""
    return norm.size(torch.maximum(clean, 1 - clean))


NEAREST_NORMS = (L2, LINF)
"""Norms that attacks of smallest norm know."""


def check_share(**values: float) -> None:
    """Raise InvalidInput unless each value is between 0 and 1."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise InvalidInput(f"{name}: expected a number in (0, 1), got {value}.")


def check_closing(closing: int) -> None:
    """Raise InvalidInput unless it is a number of answers."""
    if not closing >= 0:
        raise InvalidInput(f"closing: expected a number >= 0, got {closing}.")
