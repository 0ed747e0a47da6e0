"""DeepFool: the nearest boundary of a linearized net, again and again (Moosavi-Dezfooli et al., arXiv 1511.04599)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odefend.attacks.base import Attack, check_positive
from odefend.attacks.problem import Problem
from odefend.errors import InvalidInput
from odefend.norms import L2, LINF, Norm
from odefend.tensors import Images, Index, PerImage


@dataclass(frozen=True)
class DeepFool(Attack):
    """In each of up to `steps` steps, go to the nearest boundary that the net would have if it were linear and 1e-4 beyond
    it, and a share `overshoot` of the whole way further. Only the `candidates` classes with the largest logits at the start
    are tried.

    `norm` is L2 or LINF. The defaults are Foolbox's and, for L-inf, what Xiong et al. (2022) used.
    """

    norm: Norm = L2
    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, candidates=self.candidates)
        if self.target is not None:
            raise InvalidInput("target: expected none, since DeepFool goes to the nearest class. Use CarliniWagner.")
        if self.norm not in (L2, LINF):
            raise InvalidInput(f"norm: expected a norm that is L2 or LINF, got {self.norm.name}.")
        if not 0 <= self.overshoot < 1:
            raise InvalidInput(f"overshoot: expected a number in [0, 1), got {self.overshoot}.")

    @property
    def norm_name(self) -> str:
        return self.norm.name

    @property
    def budget(self) -> float | None:
        return None

    def measure(self, delta: Images) -> PerImage:
        return self.norm.size(delta)

    def perturb(self, problem: Problem, rows: Index) -> Images:
        clean = problem.images[rows]
        best, distance = clean.clone(), clean.new_full((len(rows),), torch.inf)
        active, x, way = torch.arange(len(rows), device=rows.device), clean, torch.zeros_like(clean)
        others = self._others(problem, rows)
        problem.progress.stage(self.name, self.steps)
        for step in range(self.steps):
            gaps, slopes = problem.slopes(rows[active], x, others[active])
            way = way + self._to_nearest(gaps, slopes)
            x = (clean[active] + (1 + self.overshoot) * way).clamp(0, 1)
            fooled = problem.predict(rows[active], x).fooled(problem.labels[rows[active]])
            there = active[fooled]
            best[there], distance[there] = x[fooled], self.measure(x[fooled] - clean[there])
            problem.remember(rows, distance)
            problem.progress.advance(step + 1)
            active, x, way = active[~fooled], x[~fooled], way[~fooled]
            if not len(active):
                # As many entries as the others have, who may still be under way in another batch.
                for _ in range(self.steps - step - 1):
                    problem.remember(rows, distance)
                break
        return best

    def _others(self, problem: Problem, rows: Index) -> Tensor:
        """The classes that are tried for each image, (N, K)."""
        logits = problem.predict(rows, problem.images[rows]).logits
        logits = logits.scatter(1, problem.labels[rows, None], -torch.inf)
        return logits.topk(min(self.candidates, problem.judge.classes) - 1, dim=1).indices

    def _to_nearest(self, gaps: Tensor, slopes: Tensor) -> Images:
        """The shortest step by which the linearized net puts another class ahead."""
        flat = slopes.flatten(2)
        # The dual norm: how fast a gap closes along the best direction of norm 1.
        rate = flat.norm(dim=2) if self.norm == L2 else flat.abs().sum(2)
        needed = gaps.abs() / rate.clamp_min(1e-12)
        chosen = needed.argmin(1)
        one = torch.arange(len(gaps), device=gaps.device)
        direction = self.norm.steepest(slopes[one, chosen])
        # As Foolbox has it, a little more than the way, lest rounding leave the image on the boundary.
        return (needed[one, chosen] + 1e-4).view(-1, 1, 1, 1) * direction
