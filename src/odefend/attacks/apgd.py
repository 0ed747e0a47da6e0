"""Auto-PGD, which chooses its step size for each image: Croce & Hein, arXiv 2003.01690."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from odefend.attacks.ball import Best, random_start
from odefend.attacks.base import check_positive
from odefend.attacks.gradient import GradientAttack
from odefend.attacks.losses import LOSSES
from odefend.attacks.problem import Problem
from odefend.errors import InvalidInput
from odefend.norms import confined
from odefend.tensors import Counts, Images, Index, Labels, Mask, PerImage


@dataclass(frozen=True)
class APGD(GradientAttack):
    """Steps of 2 epsilon from a random point of the ball, each with a share `momentum` of the one before it. At
    checkpoints, which come closer together towards the end of the `steps`, an image goes back to its best point and on from there
    with half its step size if the loss rose in fewer than a share `rho` of the steps since the last one, or if its best point
    has not changed since then with the same step size.

    `targets`: how many of the wrong classes with the largest logits are aimed at, one after another; 0: away from the true class.
    APGD-CE is `APGD(epsilon)`, APGD-DLR `loss="dlr"`, APGD-T `loss="dlr", targets=9`. dlr needs three classes, with targets
    four; with fewer, use margin. All of that is tried from `restarts` random points, on the images that are left. With
    `early_stop` an image stops at its first success; without, it ends with the candidate of the largest margin.
    """

    steps: int = 100
    restarts: int = 1
    early_stop: bool = True
    targets: int = field(default=0, kw_only=True)
    momentum: float = field(default=0.25, kw_only=True)
    rho: float = field(default=0.75, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(steps=self.steps, restarts=self.restarts)
        for name, share in (("momentum", self.momentum), ("rho", self.rho)):
            if not 0 <= share <= 1:
                raise InvalidInput(f"{name}: expected a number in [0, 1], got {share}.")
        if not self.targets >= 0:
            raise InvalidInput(f"targets: expected a number >= 0, got {self.targets}.")
        if self.targets and self.target is not None:
            raise InvalidInput(f"targets: expected 0 beside target={self.target}, got {self.targets}.")

    @property
    def cost(self) -> float:
        return float(self.steps) * self.restarts * max(self.targets, 1)

    def perturb(self, problem: Problem, rows: Index) -> Images:
        best, aims = Best(self, problem, rows), self._aims(problem, rows)
        for number in range(self.restarts * len(aims)):
            if len(best.left):
                self._climb(problem, best, aims[number % len(aims)], number)
        best.remember_until(self.restarts * len(aims) * (self.steps + 1))
        return best.images

    def _aims(self, problem: Problem, rows: Index) -> list[Labels | None]:
        """For each try of a restart, the class that each image is driven towards, if any."""
        return list(problem.likeliest(rows, self.targets).unbind(1)) if self.targets else [None]

    def _climb(self, problem: Problem, best: Best, towards: Labels | None, number: int) -> None:
        """One try, for the images that are left."""
        active, rows = best.left, best.rows
        climb = _Climb.begun(active, random_start(self, problem, rows[active], number), 2 * self.epsilon)
        periods = dict(checkpoints(self.steps))
        problem.progress.stage(self.name, self.steps)
        for step in range(self.steps):
            last, active = step == self.steps - 1, climb.active
            aim = None if towards is None else towards[active]
            found = problem.ascend(rows[active], climb.x, LOSSES[self.loss], last=last, towards=aim)
            best.note(active, climb.x, problem.confirm(rows[active], climb.x, found.seen, last=last))
            best.remember()
            problem.progress.advance(step)
            climb.note(found.height, found.gradient)
            if self.early_stop:
                climb = climb.only(~best.broken[active])
                if not len(climb.active):
                    return
            if step in periods:
                climb.check(self.rho, periods[step])
            climb.step(self, problem.images[rows[climb.active]], 0.0 if step == 0 else self.momentum)
        best.note(climb.active, climb.x, problem.stand(rows[climb.active], climb.x))
        best.remember()


def checkpoints(steps: int) -> Iterator[tuple[int, int]]:
    """When step sizes are looked at, and how many steps after the last time: after 22 % of `steps`, then each time after 3 % of
    them less than before, but at least 6 %."""
    percent, period, before = 22, 22, 0
    while percent < 100:
        at = -(-percent * steps // 100)
        if at > before:
            yield at, at - before
        before, period = at, max(period - 3, 6)
        percent += period


@dataclass
class _Climb:
    """The images under way, each at its own point with its own step size; all fields have one entry for each."""

    active: Index
    x: Images
    before: Images
    gradient: Images
    height: PerImage
    size: PerImage
    top: PerImage
    peak: Images
    slope: Images
    rises: Counts
    last_top: PerImage
    halved: Mask

    @classmethod
    def begun(cls, active: Index, start: Images, size: float) -> "_Climb":
        """At the start, before anything was said of it."""
        zero, low = torch.zeros_like(start), torch.full_like(start[:, 0, 0, 0], -torch.inf)
        count = torch.zeros_like(active)
        # What is first said is no rise, and no step size before the first is the same as it.
        return cls(
            active=active,
            x=start,
            before=start,
            gradient=zero,
            height=-low,
            size=torch.full_like(low, size),
            top=low,
            peak=start,
            slope=zero,
            rises=count,
            last_top=low,
            halved=count == 0,
        )

    def only(self, going: Mask) -> "_Climb":
        """Those of the images that go on."""
        return _Climb(**{field.name: getattr(self, field.name)[going] for field in fields(self)})

    def note(self, height: PerImage, gradient: Images) -> None:
        """What was said of where the images are."""
        higher = height > self.top
        self.rises = self.rises + (height > self.height)
        self.height, self.gradient = height, gradient
        self.top = torch.where(higher, height, self.top)
        self.peak = torch.where(_wide(higher), self.x, self.peak)
        self.slope = torch.where(_wide(higher), gradient, self.slope)

    def check(self, rho: float, steps: int) -> None:
        """At a checkpoint, `steps` steps after the last one."""
        stuck = ~self.halved & (self.top <= self.last_top)
        self.halved = (self.rises <= rho * steps) | stuck
        self.size = torch.where(self.halved, self.size / 2, self.size)
        self.x = torch.where(_wide(self.halved), self.peak, self.x)
        self.gradient = torch.where(_wide(self.halved), self.slope, self.gradient)
        self.rises, self.last_top = torch.zeros_like(self.rises), self.top

    def step(self, attack: APGD, clean: Images, momentum: float) -> None:
        """Go on."""
        norm, epsilon = attack.norm, attack.epsilon
        ahead = confined(norm, clean, self.x + _wide(self.size) * norm.steepest(self.gradient), epsilon)
        moved = self.x + (1 - momentum) * (ahead - self.x) + momentum * (self.x - self.before)
        self.before, self.x = self.x, confined(norm, clean, moved, epsilon) if momentum else ahead


def _wide(values: Tensor) -> Tensor:
    """One value for each image, to be used with its pixels."""
    return values.view(-1, 1, 1, 1)
