"""Attacks inside a ball of fixed radius that follow the sign or direction of the gradient.

FGSM: Goodfellow et al., arXiv 1412.6572. BIM: Kurakin et al., arXiv 1607.02533. PGD: Madry et al., arXiv 1706.06083.
What Carrara et al. (WIFS 2019) call PGD is BIM here: no random start, stopped at the first success.
"""

from dataclasses import dataclass, field

import torch

from odefend import rng
from odefend.attacks.base import BallAttack, check_positive
from odefend.attacks.losses import LOSSES
from odefend.attacks.problem import Problem, Standing
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
        best = _Best(self, problem, rows)
        left = torch.arange(len(rows), device=rows.device)
        for restart in range(self.restarts):
            clean = not self.random_start and restart == 0
            start = problem.images[rows[left]] if clean else self.start(problem, rows[left], restart)
            _climb(problem, best, left, start, _steps(self))
            left = left[~best.broken[left]]
            if not len(left):
                break
        return best.images

    def start(self, problem: Problem, rows: Index, restart: int) -> Images:
        """A random point of each image's ball, clipped to [0, 1]."""
        clean, ids = problem.images[rows], problem.ids_of(rows)
        shape = tuple(clean.shape[1:])
        uniform = 2 * rng.uniform(problem.seed, ids, "PGD start, uniform", restart, shape) - 1
        normal = rng.normal(problem.seed, ids, "PGD start, normal", restart, shape)
        radius = rng.uniform(problem.seed, ids, "PGD start, radius", restart, (1, 1, 1))
        point = self.norm.ball(*(noise.to(clean) for noise in (uniform, normal, radius)))
        return confined(self.norm, clean, clean + self.epsilon * point, self.epsilon)


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


class _Best:
    """Each image's candidate of the largest margin so far, by the judge, and which images are broken."""

    def __init__(self, attack: GradientAttack, problem: Problem, rows: Index) -> None:
        self.attack, self.problem, self.rows = attack, problem, rows
        self.images = problem.images[rows].clone()
        self.margin = self.images.new_full((len(rows),), -torch.inf)
        self.broken = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        self.distance = torch.full_like(self.margin, torch.inf)

    def note(self, active: Index, candidates: Images, seen: Standing) -> None:
        """Take the judge's word on candidates for the images at `active`."""
        rows = self.rows[active]
        clean = self.problem.images[rows]
        # A candidate that the judge's solver fails on is worth less than any that it answers.
        gain = torch.where(seen.prediction.answered, seen.gain, -torch.inf)
        better = gain > self.margin[active]
        self.images[active[better]], self.margin[active[better]] = candidates[better], gain[better]
        fooled, size = seen.reached, self.attack.measure(candidates - clean)
        self.broken[active] |= fooled
        self.distance[active] = torch.where(fooled, torch.minimum(size, self.distance[active]), self.distance[active])
        self.problem.remember(self.rows, self.distance)


def _from_clean(problem: Problem, rows: Index, attack: GradientAttack, steps: _Steps) -> Images:
    """One climb that starts at the clean images."""
    best = _Best(attack, problem, rows)
    _climb(problem, best, torch.arange(len(rows), device=rows.device), problem.images[rows], steps)
    return best.images


def _climb(problem: Problem, best: _Best, active: Index, start: Images, steps: _Steps) -> None:
    """Projected steps uphill on the loss from `start`, for the images at `active` among those of `best`."""
    attack, rows, x = best.attack, best.rows, start
    clean, velocity = problem.images[rows], torch.zeros_like(start)
    problem.progress.stage(attack.name, steps.count)
    for step in range(steps.count):
        last = step == steps.count - 1
        gradient, seen = problem.gradient(rows[active], x, LOSSES[attack.loss], last=last)
        best.note(active, x, problem.confirm(rows[active], x, seen, last=last))
        problem.progress.advance(step)
        if steps.momentum:
            mean = gradient.abs().mean((1, 2, 3), keepdim=True)
            gradient = velocity = steps.momentum * velocity + gradient / torch.where(mean > 0, mean, 1)
        moved = x + steps.size * attack.norm.steepest(gradient)
        moved = confined(attack.norm, clean[active], moved, attack.epsilon)
        going = ~best.broken[active] if steps.early_stop else torch.ones_like(active, dtype=torch.bool)
        active, x, velocity = active[going], moved[going], velocity[going]
        if not len(active):
            # As many entries as the others have, who may still be climbing in another batch.
            for _ in range(steps.count - step):
                problem.remember(rows, best.distance)
            return
    best.note(active, x, problem.stand(rows[active], x))
