"""DeepFool, to the nearest boundary of a linearized net again and again (Moosavi-Dezfooli et al., arXiv 1511.04599), and
SuperDeepFool, which turns what that finds towards the boundary's normal (Abdollahpoorrostam et al., arXiv 2303.12481)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from odefend.attacks.base import check_positive
from odefend.attacks.nearest import NEAREST_NORMS, Nearest, NearestAttack, check_closing
from odefend.attacks.problem import Problem
from odefend.errors import InvalidInput
from odefend.norms import L2, dual
from odefend.tensors import Images, Index


@dataclass(frozen=True)
class Linearized(NearestAttack):
    """What both share: steps to the nearest of the boundaries that the net would have if it were linear, of the `candidates`
    classes with the largest logits at the start."""

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, candidates=self.candidates)
        if self.target is not None:
            raise InvalidInput(
                f"target: expected none, since {self.name} goes to the nearest class. Use CarliniWagner."
            )
        if self.norm not in NEAREST_NORMS:
            raise InvalidInput(f"norm: expected a norm that is L2 or LINF, got {self.norm.name}.")
        if not 0 <= self.overshoot < 1:
            raise InvalidInput(f"overshoot: expected a number in [0, 1), got {self.overshoot}.")

    def to_nearest(self, gaps: Tensor, slopes: Tensor) -> Images:
        """The shortest step by which the linearized net puts another class ahead."""
        # The dual norm: how fast a gap closes along the best direction of norm 1.
        rate = dual(self.norm, slopes.flatten(0, 1)).view(gaps.shape)
        needed = gaps.abs() / rate.clamp_min(1e-12)
        chosen = needed.argmin(1)
        one = torch.arange(len(gaps), device=gaps.device)
        direction = self.norm.steepest(slopes[one, chosen])
        # As Foolbox has it, a little more than the way, lest rounding leave the image on the boundary.
        return (needed[one, chosen] + 1e-4).view(-1, 1, 1, 1) * direction


@dataclass(frozen=True)
class DeepFool(Linearized):
    """In each of up to `steps` steps, go to the nearest boundary that the net would have if it were linear and 1e-4 beyond
    it, and a share `overshoot` of the whole way further. Only the `candidates` classes with the largest logits at the start
    are tried.

    `norm` is L2 or LINF. The defaults are Foolbox's and, for L-inf, what Xiong et al. (2022) used.
    """

    def perturb(self, problem: Problem, rows: Index) -> Images:
        nearest = Nearest(problem, rows, self.norm)
        active, x, way = torch.arange(len(rows), device=rows.device), nearest.clean, torch.zeros_like(nearest.clean)
        others = problem.likeliest(rows, self.candidates - 1)
        problem.progress.stage(self.name, self.steps)
        for step in range(self.steps):
            gaps, slopes = problem.slopes(rows[active], x, others[active])
            way = way + self.to_nearest(gaps, slopes)
            x = (nearest.clean[active] + (1 + self.overshoot) * way).clamp(0, 1)
            fooled = nearest.judge(active, x)
            problem.remember(rows, nearest.distance)
            problem.progress.advance(step + 1)
            active, x, way = active[~fooled], x[~fooled], way[~fooled]
            if not len(active):
                # As many entries as the others have, who may still be under way in another batch.
                for _ in range(self.steps - step - 1):
                    problem.remember(rows, nearest.distance)
                break
        return nearest.images


@dataclass(frozen=True)
class SuperDeepFool(Linearized):
    """DeepFool's steps until an image is adversarial, each a share `overshoot` longer; then the whole way there is turned to
    the boundary's normal where it ended: if the image is adversarial still, that is the end, and else more steps follow.
    Each step of either kind is one of the `steps`. L2.

    `closing` answers of the judge go into a last search on the line to the clean image.
    """

    closing: int = field(default=10, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_closing(self.closing)
        if self.norm != L2:
            raise InvalidInput(f"norm: expected L2, got {self.norm.name}. FMN and MinimumNorm know LINF as well.")

    def perturb(self, problem: Problem, rows: Index) -> Images:
        nearest = Nearest(problem, rows, self.norm)
        clean, everything = nearest.clean, torch.arange(len(rows), device=rows.device)
        x, there = clean.clone(), torch.zeros_like(everything, dtype=torch.bool)
        others, done = problem.likeliest(rows, self.candidates - 1), there.clone()
        problem.progress.stage(self.name, self.steps)
        for step in range(self.steps):
            (short,), (beyond,) = (mask.nonzero(as_tuple=True) for mask in (~there & ~done, there & ~done))
            x[short] = self._on(problem, rows[short], x[short], others[short])
            x[beyond] = self._turned(problem, rows[beyond], x[beyond], clean[beyond])
            active = torch.cat([short, beyond]).sort().values
            reached = nearest.judge(active, x[active])
            done[active] = there[active] & reached
            there[active] = reached
            problem.remember(rows, nearest.distance)
            problem.progress.advance(step + 1)
            if bool(done.all()):
                for _ in range(self.steps - step - 1):
                    problem.remember(rows, nearest.distance)
                break
        nearest.close(self.closing)
        problem.remember(rows, nearest.distance)
        return nearest.images

    def _on(self, problem: Problem, rows: Index, x: Images, others: Tensor) -> Images:
        """One step of DeepFool."""
        if not len(rows):
            return x
        return (x + (1 + self.overshoot) * self.to_nearest(*problem.slopes(rows, x, others))).clamp(0, 1)

    def _turned(self, problem: Problem, rows: Index, x: Images, clean: Images) -> Images:
        """What is left of the way from the clean image along the gradient of the class that the image is taken for."""
        if not len(rows):
            return x
        _, slopes = problem.slopes(rows, x, problem.predict(rows, x).labels[:, None])
        axis = L2.steepest(slopes[:, 0])
        return (clean + (axis * (x - clean)).flatten(1).sum(1).view(-1, 1, 1, 1) * axis).clamp(0, 1)
