"""The Carlini & Wagner attack of smallest L2 norm (arXiv 1608.04644), with the schedule of Foolbox 2.0."""

from dataclasses import dataclass

import torch

from odefend.attacks.adam import Adam
from odefend.attacks.base import Attack, check_positive
from odefend.attacks.losses import margin
from odefend.attacks.problem import Problem
from odefend.errors import InvalidInput
from odefend.norms import L2
from odefend.tensors import Images, Index, Mask, PerImage


@dataclass(frozen=True)
class CarliniWagner(Attack):
    """Minimize ||x - x0||^2 + c max(0, kappa - margin) over w with x = (tanh w + 1) / 2, by Adam; the margin is that of the
    best wrong class, or of the target.

    For each image c starts at `initial_constant`, is multiplied by 10 until the attack succeeds, and is then bisected,
    in `binary_search_steps` rounds of up to `steps` steps of `learning_rate`. With `abort_early` an image leaves a
    round that has found nothing for it when a fifth of the steps (at least 10) has not lowered its best objective by
    0.01 %; each image by itself, so that no answer depends on the others in the batch. The candidate of smallest norm is
    kept.

    The defaults are the published settings for MNIST-like images (Carrara et al., ICPR-W 2020): Adam .05, 100 steps,
    5 rounds, c0 = 0.01; the paper used .01 as learning rate on CIFAR-10.
    """

    steps: int = 100
    binary_search_steps: int = 5
    learning_rate: float = 0.05
    initial_constant: float = 1e-2
    confidence: float = 0.0
    abort_early: bool = True

    def __post_init__(self) -> None:
        check_positive(
            steps=self.steps,
            binary_search_steps=self.binary_search_steps,
            learning_rate=self.learning_rate,
            initial_constant=self.initial_constant,
        )
        if not self.confidence >= 0:
            raise InvalidInput(f"confidence: expected a number >= 0, got {self.confidence}.")

    @property
    def norm_name(self) -> str:
        return L2.name

    @property
    def budget(self) -> float | None:
        return None

    def measure(self, delta: Images) -> PerImage:
        return L2.size(delta)

    @property
    def cost(self) -> float:
        return 0.7 * self.steps * self.binary_search_steps

    def perturb(self, problem: Problem, rows: Index) -> Images:
        clean = problem.images[rows]
        search = _Search(clean, self.initial_constant)
        problem.progress.stage(self.name, self.binary_search_steps * self.steps)
        for number in range(self.binary_search_steps):
            found = self._round(problem, rows, search, number)
            search.narrow(found)
            problem.remember(rows, search.distance)
        return search.best

    def _round(self, problem: Problem, rows: Index, search: "_Search", number: int) -> Mask:
        """One run of Adam for every image at its constant; tells for which of them an adversarial image was found."""
        start = torch.atanh(0.999999 * (2 * search.clean - 1))
        # The box's edge is out of tanh's reach: distances are to the clean image as tanh can show it.
        reference = _box(start)
        found = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        active, adam = torch.arange(len(rows), device=rows.device), Adam(start, self.learning_rate)
        # Adam swings about the boundary: the best objective of a long while tells that a constant is too small, its latest
        # value does not; and once something is found, the way goes on getting shorter after steps without progress. Given up
        # after a tenth of the steps, as Foolbox does for a whole batch, single images came out up to 30 % farther.
        lowest = start.new_full((len(rows),), torch.inf)
        before = lowest.clone()
        check_every, last = max(10, -(-self.steps // 5)), number == self.binary_search_steps - 1
        for step in range(self.steps):
            w = adam.w
            x = _box(w)
            gradient, seen = problem.gradient(rows[active], x, margin, last=last)
            gain = seen.gain
            judged = problem.confirm(rows[active], x, seen, last=last)
            fooled = judged.reached & (judged.gain >= self.confidence)
            search.keep(active[fooled], x[fooled])
            found[active[fooled]] = True
            problem.progress.advance(number * self.steps + step)
            constant, move = search.constant[active], x - reference[active]
            total = move.flatten(1).square().sum(1) + constant * (self.confidence - gain).clamp_min(0)
            # The gradient of the objective; the pull ends once the margin is large enough.
            pull = torch.where(gain < self.confidence, constant, 0).view(-1, 1, 1, 1)
            adam.step((2 * move - pull * gradient) * 2 * x * (1 - x))
            lowest[active] = torch.minimum(lowest[active], total)
            if self.abort_early and step % check_every == check_every - 1:
                going = found[active] | (lowest[active] <= 0.9999 * before[active])
                before[active] = lowest[active]
                active, _ = active[going], adam.take(going)
                if not len(active):
                    break
        return found


def _box(w: Images) -> Images:
    return ((torch.tanh(w) + 1) / 2).clamp(0, 1)


class _Search:
    """The binary search over c, and the best candidate so far, for each image."""

    def __init__(self, clean: Images, constant: float) -> None:
        self.clean, self.best = clean, clean.clone()
        self.distance = clean.new_full((len(clean),), torch.inf)
        self.constant = clean.new_full((len(clean),), constant)
        self.low, self.high = torch.zeros_like(self.constant), torch.full_like(self.constant, torch.inf)

    def keep(self, rows: Index, candidates: Images) -> None:
        """Remember adversarial candidates that are nearer than those before."""
        distance = L2.size(candidates - self.clean[rows])
        nearer = distance < self.distance[rows]
        self.best[rows[nearer]], self.distance[rows[nearer]] = candidates[nearer], distance[nearer]

    def narrow(self, found: Mask) -> None:
        """Choose the next constants: bisect, or ten times more where no constant has worked."""
        self.high = torch.where(found, self.constant, self.high)
        self.low = torch.where(found, self.low, self.constant)
        bisected = (self.low + torch.where(torch.isinf(self.high), self.low, self.high)) / 2
        self.constant = torch.where(torch.isinf(self.high), self.constant * 10, bisected)
