"""Auto-PGD, which chooses its step size for each image: Croce & Hein, arXiv 2003.01690."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import pairwise
from math import log2

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

    `targets`: how many of the wrong classes with the largest logits are aimed at; 0: away from the true class. With `race` the
    classes race: of nine ways, the four that have come highest go on after the first checkpoint, two after the second, one after
    the third, in 349 gradients. Without, all go on to the end as in the paper, in 900. Of 500 images of digits-res either broke
    202; of 200 of digits-oon, whose landscape is rougher, the race broke 126 and all the way 132 (L-inf .1, on dlr and on the
    margin).

    APGD-CE is `APGD(epsilon)`, APGD-DLR `loss="dlr"`, APGD-T `loss="dlr", targets=9`. dlr needs three classes, with targets
    four; with fewer, use margin. All of that is tried from `restarts` random points, on the images that are left. With
    `early_stop` an image stops at its first success; without, it ends with the candidate of the largest margin.
    """

    steps: int = 100
    restarts: int = 1
    early_stop: bool = True
    targets: int = field(default=0, kw_only=True)
    race: bool = field(default=True, kw_only=True)
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
        return float(self.restarts * sum(ways * len(steps) for ways, steps in self.rounds(max(self.targets, 1))))

    def rounds(self, ways: int) -> list[tuple[int, range]]:
        """How many ways go on in which steps, round by round."""
        ends = [at for at, _ in checkpoints(self.steps)][: int(log2(ways))] if self.race else []
        return [(ways >> number, range(*steps)) for number, steps in enumerate(pairwise([0, *ends, self.steps]))]

    def perturb(self, problem: Problem, rows: Index) -> Images:
        best = Best(self, problem, rows)
        aims = problem.likeliest(rows, self.targets) if self.targets else problem.labels[rows, None]
        for restart in range(self.restarts):
            if len(best.left):
                self._race(problem, best, aims, restart)
        rounds = self.rounds(aims.shape[1])
        best.remember_until(self.restarts * (sum(ways * len(steps) for ways, steps in rounds) + rounds[-1][0]))
        return best.images

    def _race(self, problem: Problem, best: Best, aims: Tensor, restart: int) -> None:
        """From one random point for each of the classes aimed at, (N, K)."""
        left, count = best.left, aims.shape[1]
        problem.progress.stage(self.name, self.steps)
        ways = [
            _Climb.begun(
                left, aim, random_start(self, problem, best.rows[left], restart * count + number), 2 * self.epsilon
            )
            for number, aim in enumerate(aims[left].unbind(1))
        ]
        for going, steps in self.rounds(count):
            ways = [self._climb(problem, best, way, steps) for way in self._highest(best, ways, going)]
        for way in ways:
            way = self._left(best, way)
            if len(way.active):
                best.note(way.active, way.x, problem.stand(best.rows[way.active], way.x))
                best.remember()

    def _climb(self, problem: Problem, best: Best, climb: "_Climb", steps: range) -> "_Climb":
        """Some of the steps of one way."""
        periods = dict(checkpoints(self.steps))
        for step in steps:
            last, rows = step == self.steps - 1, best.rows[climb.active]
            towards = climb.aim if self.targets else None
            found = problem.ascend(rows, climb.x, LOSSES[self.loss], last=last, towards=towards)
            best.note(climb.active, climb.x, problem.confirm(rows, climb.x, found.seen, last=last))
            best.remember()
            problem.progress.advance(step)
            climb.note(found.height, found.gradient)
            climb = self._left(best, climb)
            if not len(climb.active):
                break
            if step in periods:
                climb.check(self.rho, periods[step])
            climb.step(self, problem.images[best.rows[climb.active]], 0.0 if step == 0 else self.momentum)
        return climb

    def _left(self, best: Best, climb: "_Climb") -> "_Climb":
        return climb.only(~best.broken[climb.active]) if self.early_stop else climb

    def _highest(self, best: Best, ways: list["_Climb"], going: int) -> list["_Climb"]:
        """For each image that is left, those of the ways that have come highest."""
        ways = [self._left(best, way) for way in ways]
        if going == len(ways):
            return ways
        order = torch.stack([way.top for way in ways]).argsort(dim=0, descending=True, stable=True)
        return [_Climb.chosen(ways, rank) for rank in order[:going]]


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
    """A way of each image, at its own point with its own step size; all fields have one entry for each image."""

    active: Index
    aim: Labels
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
    def begun(cls, active: Index, aim: Labels, start: Images, size: float) -> "_Climb":
        """At the start, before anything was said of it."""
        zero, low = torch.zeros_like(start), torch.full_like(start[:, 0, 0, 0], -torch.inf)
        count = torch.zeros_like(active)
        # What is first said is no rise, and no step size before the first is the same as it.
        return cls(
            active=active,
            aim=aim,
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

    @classmethod
    def chosen(cls, ways: list["_Climb"], rank: Index) -> "_Climb":
        """For each image, one of several ways of the same images."""
        one = torch.arange(len(rank), device=rank.device)
        each = {field.name: torch.stack([getattr(way, field.name) for way in ways]) for field in fields(cls)}
        return cls(**{name: values[rank, one] for name, values in each.items()})

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
