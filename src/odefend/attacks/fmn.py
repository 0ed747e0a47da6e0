"""Fast minimum norm: Pintor et al., arXiv 2102.12827."""

from dataclasses import dataclass, field

import torch

from odefend.attacks.base import check_positive
from odefend.attacks.losses import margin
from odefend.attacks.nearest import (
    NEAREST_NORMS,
    Nearest,
    NearestAttack,
    annealed,
    check_closing,
    check_share,
    farthest,
)
from odefend.attacks.problem import Problem, Standing
from odefend.errors import InvalidInput
from odefend.norms import L2, dual
from odefend.tensors import Images, Index, PerImage


@dataclass(frozen=True)
class FMN(NearestAttack):
    """Steps along the gradient of the margin inside a ball around the clean image, whose radius is the distance to the
    linearized boundary, and a share `gamma` of the way so far more, until an image is adversarial, and then shrinks and grows
    as in `DDN`. L2 or LINF.

    Steps have an L2 length of `step_size`, falling to 1e-5; the radius changes by a share `gamma`, falling to .001, both
    along a cosine. `closing` answers of the judge go into a last search on the line to the clean image. The defaults are
    Foolbox's but for that search, which the paper does not have.
    """

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05
    closing: int = field(default=10, kw_only=True)

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, step_size=self.step_size)
        check_share(gamma=self.gamma)
        check_closing(self.closing)
        if self.norm not in NEAREST_NORMS:
            raise InvalidInput(f"norm: expected L2 or LINF, got {self.norm.name}.")

    def perturb(self, problem: Problem, rows: Index) -> Images:
        nearest = Nearest(problem, rows, self.norm)
        clean, everything = nearest.clean, torch.arange(len(rows), device=rows.device)
        x, limit = clean, farthest(self.norm, clean)
        epsilon = torch.full_like(limit, torch.inf)
        problem.progress.stage(self.name, self.steps)
        for step in range(self.steps):
            last, done = step == self.steps - 1, step / self.steps
            gradient, seen = problem.gradient(rows, x, margin, last=last)
            judged = problem.confirm(rows, x, seen, last=last)
            nearest.note(everything, x, judged.reached)
            problem.remember(rows, nearest.distance)
            problem.progress.advance(step)
            gamma = annealed(self.gamma, min(0.001, self.gamma), done)
            epsilon = torch.minimum(self._radius(nearest, x, gradient, judged, epsilon, gamma), limit)
            moved = x + annealed(self.step_size, 1e-5, done) * L2.steepest(gradient)
            inside = self.norm.project(moved - clean, epsilon.view(-1, 1, 1, 1))
            x = (clean + inside).clamp(0, 1)
        nearest.judge(everything, x)
        nearest.close(self.closing)
        problem.remember(rows, nearest.distance)
        return nearest.images

    def _radius(
        self, nearest: Nearest, x: Images, gradient: Images, judged: Standing, epsilon: PerImage, gamma: float
    ) -> PerImage:
        """The next radius."""
        rate = dual(self.norm, gradient).clamp_min(1e-12)
        # A little beyond the linearized boundary: a linear net would otherwise be left on it to rounding, and one whose
        # pixels end at the box just short of it.
        linear = (1 + gamma) * self.norm.size(x - nearest.clean) + judged.gain.abs() / rate
        found = nearest.distance.isfinite()
        shrunk = torch.minimum(epsilon * (1 - gamma), nearest.distance)
        return torch.where(judged.reached, shrunk, torch.where(found, epsilon * (1 + gamma), linear))
