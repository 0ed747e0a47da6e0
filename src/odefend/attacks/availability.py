"""An attack on time: images that keep an adaptive solver busy."""

from dataclasses import dataclass

import torch

from odefend.attacks.base import BallAttack, check_positive
from odefend.attacks.problem import Problem, padded_batches
from odefend.errors import InvalidInput
from odefend.models import solving
from odefend.norms import confined
from odefend.solver import Status
from odefend.tensors import Images, Index


@dataclass(frozen=True)
class Availability(BallAttack):
    """Drive up the number of evaluations of the vector field inside a ball, by projected gradient steps.

    What is climbed is a smooth stand-in for the number of solver steps, `Solving.effort` on `grid` fixed steps; kept is the
    candidate for which the judge needed most evaluations, one that its `max_steps` ended before any other. `steps` steps of
    `step_size` (default: half of epsilon, since the stand-in is rough and small steps stay where they begin) start from the
    clean image, and again from it flattened towards each of the `greys` as far as the ball allows: a state without contrast
    is scaled up by the net's normalization, and costs most. The attack does not aim at labels: `success` still says whether
    the label became wrong, so read `nfe` and `status` of the judge's prediction.

    Related: slow-down attacks on early-exit nets (Hong et al., arXiv 2010.02432).
    """

    steps: int = 20
    step_size: float | None = None
    grid: int = 8
    greys: tuple[float, ...] = (0.0, 0.5, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(steps=self.steps, grid=self.grid)
        if self.step_size is not None:
            check_positive(step_size=self.step_size)
        if not all(0 <= grey <= 1 for grey in self.greys):
            raise InvalidInput(f"greys: expected pixel values in [0, 1], got {self.greys}.")
        if self.search_precision != "full":
            raise InvalidInput(
                f"search_precision: expected full, got {self.search_precision}: solver steps are counted exactly."
            )
        if self.target is not None:
            raise InvalidInput("target: expected none, since the attack is on time, not on labels.")

    @property
    def cost(self) -> float:
        # From each start, beside an answer after each step.
        return 1.4 * self.steps * (1 + len(self.greys))

    def perturb(self, problem: Problem, rows: Index) -> Images:
        clean = problem.images[rows]
        best, most = clean.clone(), problem.images.new_full((len(rows),), -torch.inf)
        starts = [
            clean,
            *(confined(self.norm, clean, torch.full_like(clean, grey), self.epsilon) for grey in self.greys),
        ]
        problem.progress.stage(self.name, len(starts) * (self.steps + 1))
        for number, x in enumerate(starts):
            for step in range(self.steps + 1):
                said = problem.predict(rows, x)
                work = torch.where(said.status == int(Status.MAX_STEPS), torch.inf, said.nfe.to(clean))
                more = work > most
                best[more], most[more] = x[more], work[more]
                problem.progress.advance(number * (self.steps + 1) + step)
                if step < self.steps:
                    size = self.epsilon / 2 if self.step_size is None else self.step_size
                    moved = x + size * self.norm.steepest(self._slope(problem, rows, x))
                    x = confined(self.norm, clean, moved, self.epsilon)
        return best

    def _slope(self, problem: Problem, rows: Index, x: Images) -> Images:
        problem.gradient_calls[rows] += 1
        slopes = []
        for some, batch, size in padded_batches(rows, x):
            batch = batch.detach().requires_grad_(True)
            with torch.enable_grad():
                effort = solving(problem.source, self.name, controlled=True).rows(some).effort(batch, self.grid)
                slopes.append(torch.autograd.grad(effort.sum(), batch)[0][:size])
        slope = torch.cat(slopes)
        healthy = slope.isfinite().flatten(1).all(1) & slope.flatten(1).any(1)
        problem.zero_gradients[rows] += (~healthy).long()
        return torch.nan_to_num(slope, 0.0, 0.0, 0.0)
