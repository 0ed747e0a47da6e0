"""The Square attack, which asks for answers only: Andriushchenko et al., arXiv 1912.00049."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from odefend import rng
from odefend.attacks.ball import Best
from odefend.attacks.base import BallAttack, check_positive
from odefend.attacks.nearest import check_share
from odefend.attacks.problem import Problem
from odefend.errors import InvalidInput
from odefend.norms import L2, LINF, confined
from odefend.tensors import Images, Index

BLOCK = 100
"""Queries whose random numbers are drawn at once, and that count as an outer step."""


@dataclass(frozen=True)
class Square(BallAttack):
    """Random search: a change inside a square at a random place is kept where it raises the judge's margin (with a guard: the
    smaller of that and the detector's slack), in at most `queries` answers an image. No gradients, so that it works on whatever
    answers, and hidden gradients hide nothing from it. Images leave once they are broken.

    The square covers a share `p_init` of the image at first, and half of that after .1 % of the queries, then after .5, 2, 5,
    10, 20, 40, 60 and 80 %. In L-inf the change sets each channel of the square to the ball's edge on one side; it starts
    from stripes of the width of a pixel. In L2 it moves the perturbation of one square to another, in the form of two
    opposite bumps. LINF or L2.
    """

    queries: int = 5000
    p_init: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(queries=self.queries)
        check_share(p_init=self.p_init)
        if self.norm not in (LINF, L2):
            raise InvalidInput(f"norm: expected LINF or L2, got {self.norm.name}.")

    @property
    def cost(self) -> float:
        return 0.4 * self.queries

    def perturb(self, problem: Problem, rows: Index) -> Images:
        best = Best(self, problem, rows)
        problem.progress.stage(self.name, self.queries)
        for first in range(0, self.queries, BLOCK):
            self._ask(problem, best, range(first, min(first + BLOCK, self.queries)))
            best.remember()
            problem.progress.advance(first)
        return best.images

    def _ask(self, problem: Problem, best: Best, queries: range) -> None:
        """Some of the queries, about the images that are left."""
        active, shape = best.left, best.images.shape[1:]
        ids = problem.ids_of(best.rows[active])
        draws = rng.uniform(problem.seed, ids, "Square, changes", queries.start, (len(queries), 5 + shape[0]))
        draws = draws.to(best.images)
        for number, query in enumerate(queries):
            if not len(active):
                return
            rows = best.rows[active]
            clean, delta = problem.images[rows], best.images[active] - problem.images[rows]
            if query == 0:
                delta = self._start(rng.uniform(problem.seed, ids, "Square, start", 0, tuple(shape)).to(clean))
            else:
                delta = self._changed(delta, draws[:, number], self.side(query, shape[1], shape[2]))
            x = confined(self.norm, clean, clean + delta, self.epsilon)
            best.note(active, x, problem.stand(rows, x))
            going = ~best.broken[active]
            active, draws = active[going], draws[going]

    def side(self, query: int, height: int, width: int) -> int:
        """The side of the square in pixels."""
        halvings = sum(query > share * self.queries for share in _HALVINGS)
        side = round((self.p_init / 2**halvings * height * width) ** 0.5)
        # The bumps of L2 have a middle.
        return min(max(side, 1) if self.norm == LINF else max(side, 3) // 2 * 2 + 1, height, width)

    def _start(self, draw: Images) -> Images:
        """Perturbations to start from, made of numbers in [0, 1)."""
        height, width = draw.shape[2:]
        if self.norm == LINF:
            return (self.epsilon * _sign(draw[:, :, :1])).expand_as(draw)
        cell = max(height // 5, 1)
        row, column = (torch.arange(size, device=draw.device) for size in (height, width))
        sign = _sign(draw)[:, :, row // cell][..., column // cell]
        return self.epsilon * L2.steepest(sign * _bumps(cell).to(draw)[row % cell][:, column % cell])

    def _changed(self, delta: Images, draw: Tensor, side: int) -> Images:
        """Perturbations with a change, made of numbers in [0, 1): two squares' places, whether to turn the bumps, and signs."""
        sign = _sign(draw[:, 5:, None, None])
        row, column = _offsets(draw[:, :2], side, delta)
        here = _within(row, column, side)
        if self.norm == LINF:
            return torch.where(here, self.epsilon * sign, delta)
        there = _within(*_offsets(draw[:, 2:4], side, delta), side)
        row, column = row.clamp(0, side - 1), column.clamp(0, side - 1)
        bumps = _bumps(side).to(delta)
        bumps = torch.where(draw[:, 4, None, None, None] < 0.5, bumps[row, column], bumps[column, row])
        unused = (self.epsilon**2 - L2.size(delta).square()).clamp_min(0).view(-1, 1, 1, 1) / delta.shape[1]
        length = (_length(delta * (here | there)).square() + unused).sqrt()
        fresh = here * (sign * bumps + delta / _length(delta * here).clamp_min(1e-12))
        return torch.where(here, length * fresh / _length(fresh).clamp_min(1e-12), delta * ~there)


_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def _sign(draw: Tensor) -> Tensor:
    return torch.where(draw < 0.5, -1.0, 1.0).to(draw)


def _offsets(corner: Tensor, side: int, images: Images) -> tuple[Tensor, Tensor]:
    """How far each row, (N, 1, height, 1), and each column, (N, 1, 1, width), is from the corner of a square, whose place is
    given in [0, 1)."""
    height, width = images.shape[2:]
    top, left = ((corner[:, axis] * (size - side + 1)).long() for axis, size in enumerate((height, width)))
    row, column = (torch.arange(size, device=images.device) for size in (height, width))
    return (row - top[:, None])[:, None, :, None], (column - left[:, None])[:, None, None, :]


def _within(row: Tensor, column: Tensor, side: int) -> Tensor:
    return (row >= 0) & (row < side) & (column >= 0) & (column < side)


def _length(delta: Images) -> Tensor:
    """The length of each channel, (N, channels, 1, 1)."""
    return delta.flatten(2).norm(dim=2)[:, :, None, None]


@lru_cache(maxsize=64)
def _bumps(side: int) -> Tensor:
    """Two bumps of opposite signs, one above the other, (side, side)."""
    return torch.cat([_bump(side // 2, side), -_bump(side - side // 2, side)])


def _bump(height: int, width: int) -> Tensor:
    """Rings around the middle, each by 1/k^2 higher than the next one outside."""
    row, column = ((torch.arange(size) - size // 2).abs() for size in (height, width))
    rises = 1 / torch.arange(1.0, max(height, width) // 2 + 2) ** 2
    bump = rises.flip(0).cumsum(0).flip(0)[torch.maximum(row[:, None], column)]
    return bump / bump.norm().clamp_min(1e-12)
