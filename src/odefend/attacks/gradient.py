"""Attacks inside a ball of fixed radius that follow the sign or direction of the gradient.

FGSM: Goodfellow et al., arXiv 1412.6572. BIM: Kurakin et al., arXiv 1607.02533. PGD: Madry et al., arXiv 1706.06083.
What Carrara et al. (WIFS 2019) call PGD is BIM here: no random start, stopped at the first success.
"""

from dataclasses import dataclass, field

import torch

from odefend.attacks.ball import Best, random_start
from odefend.attacks.base import BallAttack, check_positive
from odefend.attacks.losses import LOSSES
from odefend.attacks.problem import Problem
from odefend.errors import InvalidInput, unknown
from odefend.norms import confined
from odefend.tensors import Images, Index


@dataclass(frozen=True)
class GradientAttack(BallAttack):
    """What FGSM, BIM and PGD share: they climb one of the `LOSSES`."""

    loss: str = field(default="cross-entropy", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)


@dataclass(frozen=True)
class FGSM(GradientAttack):
    """One step of full length along the gradient of the loss."""

    def perturb(self, problem: Problem, rows: Index) -> Images:
        return _from_clean(problem, rows, self, _Steps(1, self.epsilon, early_stop=False))


@dataclass(frozen=True)
class BIM(GradientAttack):
    """`steps` steps of `step_size` from the clean image, projected back into the ball; default size 2.5 epsilon / steps.

    With `momentum` a step follows the sum of the gradients so far, each scaled to a mean size of 1, and those before it
    multiplied by `momentum` once for each step since (Dong et al., arXiv 1710.06081, where it is 1).
    """

    steps: int = 10
    step_size: float | None = None
    early_stop: bool = True
    momentum: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self)

    def perturb(self, problem: Problem, rows: Index) -> Images:
        return _from_clean(problem, rows, self, _steps(self))


@dataclass(frozen=True)
class PGD(GradientAttack):
    """BIM from a random point of the ball, tried `restarts` times; an image is left alone once it is broken. Without
    `random_start` the first try begins at the clean image.

    With `early_stop` an image stops at its first success; without, it goes on for all steps and ends with the
    candidate of the largest margin, which transfers better to other tolerances.
    """

    steps: int = 20
    step_size: float | None = None
    early_stop: bool = True
    restarts: int = 1
    momentum: float = field(default=0.0, kw_only=True)
    random_start: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_steps(self)
        check_positive(restarts=self.restarts)

    def perturb(self, problem: Problem, rows: Index) -> Images:
        best = Best(self, problem, rows)
        for restart in range(self.restarts):
            left = best.left
            if not len(left):
                break
            clean = not self.random_start and restart == 0
            start = problem.images[rows[left]] if clean else random_start(self, problem, rows[left], restart)
            _climb(problem, best, left, start, _steps(self), self)
        best.remember_until(self.restarts * (self.steps + 1))
        return best.images


def _check_steps(attack: BIM | PGD) -> None:
    check_positive(steps=attack.steps)
    if attack.step_size is not None:
        check_positive(step_size=attack.step_size)
    if not 0 <= attack.momentum <= 1:
        raise InvalidInput(f"momentum: expected a number in [0, 1], got {attack.momentum}.")


@dataclass(frozen=True)
class _Steps:
    """How to climb."""

    count: int
    size: float
    early_stop: bool
    momentum: float = 0.0


def _steps(attack: BIM | PGD) -> _Steps:
    size = attack.step_size if attack.step_size is not None else 2.5 * attack.epsilon / attack.steps
    return _Steps(attack.steps, size, attack.early_stop, attack.momentum)


def _from_clean(problem: Problem, rows: Index, attack: GradientAttack, steps: _Steps) -> Images:
    """One climb that starts at the clean images."""
    best = Best(attack, problem, rows)
    _climb(problem, best, best.left, problem.images[rows], steps, attack)
    best.remember_until(steps.count + 1)
    return best.images


def _climb(problem: Problem, best: Best, active: Index, start: Images, steps: _Steps, attack: GradientAttack) -> None:
    """Projected steps uphill on the loss from `start`, for the images at `active` among those of `best`."""
    rows, x = best.rows, start
    clean, velocity = problem.images[rows], torch.zeros_like(start)
    problem.progress.stage(attack.name, steps.count)
    for step in range(steps.count):
        if not len(active):
            return
        last = step == steps.count - 1
        gradient, seen = problem.gradient(rows[active], x, LOSSES[attack.loss], last=last)
        best.note(active, x, problem.confirm(rows[active], x, seen, last=last))
        best.remember()
        problem.progress.advance(step)
        if steps.momentum:
            mean = gradient.abs().mean((1, 2, 3), keepdim=True)
            gradient = velocity = steps.momentum * velocity + gradient / torch.where(mean > 0, mean, 1)
        moved = x + steps.size * attack.norm.steepest(gradient)
        moved = confined(attack.norm, clean[active], moved, attack.epsilon)
        going = ~best.broken[active] if steps.early_stop else torch.ones_like(active, dtype=torch.bool)
        active, x, velocity = active[going], moved[going], velocity[going]
    if len(active):
        best.note(active, x, problem.stand(rows[active], x))
        best.remember()
