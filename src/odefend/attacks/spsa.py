"""SPSA, which estimates gradients from answers: Uesato et al., arXiv 1802.05666; Spall, doi 10.1109/9.119632."""

from dataclasses import dataclass

import torch

from odefend import rng
from odefend.attacks.adam import Adam
from odefend.attacks.ball import Best
from odefend.attacks.base import BallAttack, check_positive
from odefend.attacks.problem import Problem
from odefend.errors import InvalidInput
from odefend.norms import confined
from odefend.tensors import Images, Index


@dataclass(frozen=True)
class SPSA(BallAttack):
    """Adam at `learning_rate` from the clean image, on the judge's margin (with a guard: the smaller of that and the detector's
    slack), projected back into the ball after each of the `steps`. A gradient is the mean of the slopes along `samples` / 2
    random vectors of signs, each asked about `delta` ahead and behind, inside [0, 1]. No gradients are asked for. Images leave
    once they are broken.
    """

    steps: int = 100
    samples: int = 128
    delta: float = 0.01
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(steps=self.steps, samples=self.samples, delta=self.delta, learning_rate=self.learning_rate)
        if self.samples % 2:
            raise InvalidInput(f"samples: expected an even number, got {self.samples}.")

    @property
    def cost(self) -> float:
        return 0.4 * self.steps * (self.samples + 1)

    def perturb(self, problem: Problem, rows: Index) -> Images:
        best = Best(self, problem, rows)
        active, adam = best.left, Adam(problem.images[rows], self.learning_rate)
        problem.progress.stage(self.name, self.steps)
        for step in range(self.steps):
            adam.step(-self._slope(problem, rows[active], adam.w, step))
            adam.w = confined(self.norm, problem.images[rows[active]], adam.w, self.epsilon)
            best.note(active, adam.w, problem.stand(rows[active], adam.w))
            best.remember()
            problem.progress.advance(step)
            going = ~best.broken[active]
            active, _ = active[going], adam.take(going)
            if not len(active):
                break
        best.remember_until(self.steps)
        return best.images

    def _slope(self, problem: Problem, rows: Index, x: Images, step: int) -> Images:
        """The gradient of the judge's gain, estimated."""
        pairs = self.samples // 2
        draws = rng.uniform(problem.seed, problem.ids_of(rows), "SPSA, signs", step, (pairs, *x.shape[1:]))
        ways = torch.where(draws < 0.5, -1.0, 1.0).to(x)
        asked = torch.stack([x[:, None] + self.delta * ways, x[:, None] - self.delta * ways]).clamp(0, 1)
        repeated = rows[None, :, None].expand(2, -1, pairs).flatten()
        gain = problem.stand(repeated, asked.flatten(0, 2)).gain.view(2, len(rows), pairs)
        slopes = torch.nan_to_num(gain[0] - gain[1], 0.0, 0.0, 0.0) / (2 * self.delta)
        return (slopes[..., None, None, None] * ways).mean(1)
