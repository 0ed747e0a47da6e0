"""Decoupled direction and norm: Rony et al., arXiv 1811.09600."""

from dataclasses import dataclass, field

import torch

from odefend.attacks.base import check_positive
from odefend.attacks.losses import LOSSES
from odefend.attacks.nearest import Nearest, NearestAttack, annealed, check_closing, check_share, farthest
from odefend.attacks.problem import Problem
from odefend.errors import InvalidInput, unknown
from odefend.norms import L2
from odefend.tensors import Images, Index


@dataclass(frozen=True)
class DDN(NearestAttack):
    """Steps along the gradient's direction on a sphere around the clean image, whose radius shrinks by a share `gamma` while
    the image is adversarial and grows by as much while it is not. L2.

    The radius starts at `init_epsilon`; the steps' length falls from 1 to .01 along a cosine. `closing` answers of the judge
    go into a last search on the line to the clean image. The defaults are Foolbox's but for that search, which the paper
    does not have.
    """

    steps: int = 100
    init_epsilon: float = 1.0
    gamma: float = 0.05
    loss: str = field(default="cross-entropy", kw_only=True)
    closing: int = field(default=10, kw_only=True)

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, init_epsilon=self.init_epsilon)
        if self.norm != L2:
            raise InvalidInput(f"norm: expected L2, got {self.norm.name}. FMN and MinimumNorm know LINF as well.")
        check_share(gamma=self.gamma)
        check_closing(self.closing)
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)

    def perturb(self, problem: Problem, rows: Index) -> Images:
        nearest = Nearest(problem, rows, self.norm)
        clean, everything = nearest.clean, torch.arange(len(rows), device=rows.device)
        x, limit = clean, farthest(self.norm, clean)
        epsilon = torch.full_like(limit, self.init_epsilon)
        problem.progress.stage(self.name, self.steps)
        for step in range(self.steps):
            last = step == self.steps - 1
            gradient, seen = problem.gradient(rows, x, LOSSES[self.loss], last=last)
            reached = problem.confirm(rows, x, seen, last=last).reached
            nearest.note(everything, x, reached)
            problem.remember(rows, nearest.distance)
            problem.progress.advance(step)
            epsilon = torch.minimum(epsilon * torch.where(reached, 1 - self.gamma, 1 + self.gamma), limit)
            moved = x - clean + annealed(1.0, 0.01, step / self.steps) * self.norm.steepest(gradient)
            x = (clean + epsilon.view(-1, 1, 1, 1) * self.norm.steepest(moved)).clamp(0, 1)
        nearest.judge(everything, x)
        nearest.close(self.closing)
        problem.remember(rows, nearest.distance)
        return nearest.images
