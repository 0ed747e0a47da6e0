"""The nearest adversarial image in about a hundred gradients: ways to several classes, of which the best go on."""

from dataclasses import dataclass, field
from math import log2

import torch
from torch import Tensor

from odefend.attacks.base import check_positive
from odefend.attacks.losses import lead, margin
from odefend.attacks.nearest import Nearest, NearestAttack, annealed, check_closing, farthest
from odefend.attacks.problem import BATCH, Problem
from odefend.norms import dual
from odefend.tensors import Images, Index, Mask, PerImage


@dataclass(frozen=True)
class MinimumNorm(NearestAttack):
    """Which class is nearest decides more than how long is searched, so every image sets out to several classes at once: the
    `candidates` with the largest logits. Of nine ways, the four that have come nearest go on after 4 of 44 `steps`, two of
    them after 9, and one after 18 to the end: 100 gradients. With two classes there is one way, and 44 gradients.

    A step is one of DDN's (arXiv 1811.09600): along the steepest direction of the norm, as long as the radius at first and a
    hundredth of it in the end, inside a ball around the clean image. It climbs the lead of the way's class, after a quarter
    of the steps that of any wrong class. The radius begins at the linearized boundary (FMN, arXiv 2102.12827), and shrinks
    by a share while an image is adversarial and grows by as much while it is not, .3 at first and .005 in the end. `closing`
    answers of the judge go into a last search on the line to the clean image. L2, LINF or RMS.
    """

    steps: int = 44
    candidates: int = 9
    closing: int = field(default=10, kw_only=True)

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, candidates=self.candidates)
        check_closing(self.closing)

    @property
    def cost(self) -> float:
        return sum(going * steps for going, steps in self.rounds(self.candidates)) + 0.4 * self.closing

    def perturb(self, problem: Problem, rows: Index) -> Images:
        problem.progress.stage(self.name, -(-len(rows) // BATCH) * self.steps)
        searches = [_Search(self, problem, some, number) for number, some in enumerate(rows.split(BATCH))]
        found = torch.cat([search.run() for search in searches])
        for distances in zip(*(search.history for search in searches), strict=True):
            problem.remember(rows, torch.cat(distances))
        return found

    def rounds(self, ways: int) -> list[tuple[int, int]]:
        """How many ways go on for how many steps, round by round."""
        halvings = int(log2(ways))
        ends = [max(1, int(3 / 7 * self.steps / 2**left)) for left in reversed(range(halvings))] + [self.steps]
        begins = [0, *ends[:-1]]
        return [(ways >> number, end - begin) for number, (begin, end) in enumerate(zip(begins, ends, strict=True))]


class _Search:
    """The ways of a batch of images: `rows` and `towards` say of which image each is, and to which class."""

    def __init__(self, attack: MinimumNorm, problem: Problem, images: Index, number: int) -> None:
        classes = problem.likeliest(images, attack.candidates)
        self.attack, self.problem, self.images, self.number = attack, problem, images, number
        self.ways, self.rows, self.towards = (
            classes.shape[1],
            images.repeat_interleave(classes.shape[1]),
            classes.flatten(),
        )
        self.nearest = Nearest(problem, self.rows, attack.norm)
        self.x, self.limit = self.nearest.clean.clone(), farthest(attack.norm, self.nearest.clean)
        self.epsilon = torch.full_like(self.limit, torch.inf)
        self.history: list[PerImage] = []

    def run(self) -> Images:
        """The nearest adversarial images; the clean ones where none was found."""
        active, step = torch.arange(len(self.rows), device=self.rows.device), 0
        for going, steps in self.attack.rounds(self.ways):
            active = self._best(active, going)
            for _ in range(steps):
                self._step(active, step)
                step += 1
                self.history.append(self._distances().amin(1))
                self.problem.progress.advance(self.number * self.attack.steps + step)
        self.nearest.judge(active, self.x[active])
        best = self._distances().argmin(1) + self.ways * torch.arange(len(self.images), device=active.device)
        found = Nearest(self.problem, self.images, self.attack.norm)
        found.images, found.distance = self.nearest.images[best], self.nearest.distance[best]
        found.close(self.attack.closing)
        self.history.append(found.distance)
        return found.images

    def _distances(self) -> Tensor:
        """What was found so far on each image's ways, (images, ways)."""
        return self.nearest.distance.view(-1, self.ways)

    def _step(self, active: Index, step: int) -> None:
        norm, rows, x = self.attack.norm, self.rows[active], self.x[active]
        done, last = step / self.attack.steps, step == self.attack.steps - 1
        towards = self.towards[active] if done < 0.25 else None
        gradient, seen = self.problem.gradient(rows, x, margin, last=last, towards=towards)
        reached = self.problem.confirm(rows, x, seen, last=last).reached
        self.nearest.note(active, x, reached)
        gap = lead(seen.prediction.logits, self.problem.labels[rows], self.towards[active])
        first = torch.minimum(gap.abs() / dual(norm, gradient).clamp_min(1e-12), self.limit[active] / 2)
        epsilon = self._radius(self.epsilon[active], reached, annealed(0.3, 0.005, done), first)
        self.epsilon[active] = epsilon = torch.minimum(epsilon, self.limit[active])
        radius, clean = epsilon.view(-1, 1, 1, 1), self.nearest.clean[active]
        moved = x - clean + annealed(1.0, 0.01, done) * radius * norm.steepest(gradient)
        self.x[active] = (clean + norm.project(moved, radius)).clamp(0, 1)

    @staticmethod
    def _radius(epsilon: PerImage, reached: Mask, share: float, first: PerImage) -> PerImage:
        return torch.where(epsilon.isinf(), first, epsilon * torch.where(reached, 1 - share, 1 + share))

    def _best(self, active: Index, going: int) -> Tensor:
        """The ways that go on: those of each image that have ended nearest."""
        ways = len(active) // len(self.images)
        if going == ways:
            return active
        order = self._reach(active).view(-1, ways).sort(dim=1, stable=True).indices[:, :going].sort(1).values
        return active.view(-1, ways).gather(1, order).flatten()

    def _reach(self, active: Index, answers: int = 5) -> PerImage:
        """How far the judge is fooled at from the clean image through where each way is now, on the line that goes on."""
        clean, way = self.nearest.clean[active], self.x[active] - self.nearest.clean[active]
        low, high = torch.zeros_like(self.limit[active]), torch.full_like(self.limit[active], torch.inf)
        share = torch.ones_like(low)
        for _ in range(answers):
            reached = self.nearest.judge(active, (clean + share.view(-1, 1, 1, 1) * way).clamp(0, 1))
            low, high = torch.where(reached, low, share), torch.where(reached, share, high)
            share = torch.where(high.isinf(), 1.3 * share, (low + high) / 2)
        end = torch.where(high.isinf(), 2 * low, high).view(-1, 1, 1, 1)
        return self.attack.norm.size((clean + end * way).clamp(0, 1) - clean)
