"""The Attack noun: one template that keeps every promise, and a problem that an algorithm works on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from odefend.attacks.losses import margin
from odefend.errors import InvalidInput
from odefend.models import Classifier, Prediction, check_images, join
from odefend.progress import Progress, Silent
from odefend.rng import content_ids
from odefend.solver import PADDED_ROWS
from odefend.tensors import Counts, Images, Index, Labels, Logits, Mask, PerImage

BATCH = 256
"""Largest number of images that an attack sends through a net at once."""


@dataclass(frozen=True)
class Adversarial:
    """What an attack found for each image.

    `images`: the adversarial images; the clean image where a minimum-norm attack found nothing.
    `success`: whether the classifier, asked again at the end, answers with a wrong label (with a target: with that one);
        never where it was wrong at the start or where its solver failed.
    `distance`: the size of the perturbation in the attack's norm; 0 where initially wrong, inf where a minimum-norm
        attack found nothing.
    `initially_wrong`: images that the classifier got wrong (or did not answer) before the attack; left out of rates.
    `gradient_calls`, `forward_calls`: evaluations of the source's gradient and of the classifier, per image.
    `status`: the classifier's `solver.Status` on the final image.
    `zero_gradients`: how many of the gradients were zero or not finite: a sign of masked gradients.
    `history`: (N, outer steps): the smallest adversarial distance found so far, inf before the first: the attack's
        convergence. Outer steps are iterations for attacks in a ball, rounds of the search over c for Carlini-Wagner.
    """

    images: Images
    success: Mask
    distance: PerImage
    initially_wrong: Mask
    gradient_calls: Counts
    forward_calls: Counts
    status: Counts
    zero_gradients: Counts
    history: Tensor


Loss = Callable[[Logits, Labels], PerImage]


class Problem:
    """The images under attack and the two nets: `judge` decides success, `source` gives gradients.

    `target` is the class that the attacker wants; None: any but the true one. Algorithms name images by their position;
    every call is padded to PADDED_ROWS images, so that an answer does not change in its last bits when others leave the
    active set.
    """

    def __init__(
        self,
        judge: Classifier,
        source: Classifier | None,
        images: Images,
        labels: Labels,
        ids: Sequence[str],
        seed: int,
        progress: Progress,
        target: int | None = None,
    ) -> None:
        self.target = target
        self.judge, self.source = judge, source or judge
        self.images, self.labels, self.ids, self.seed, self.progress = images, labels, tuple(ids), seed, progress
        count = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.gradient_calls, self.forward_calls, self.zero_gradients = count, count.clone(), count.clone()
        self.history: list[PerImage] = []

    @property
    def one_net(self) -> bool:
        """Whether the net that gives gradients is the one that judges, so that a gradient's logits tell success."""
        return self.source is self.judge

    def reached(self, rows: Index, said: Prediction) -> Mask:
        """Where the judge's word on candidates for the images at `rows` is what the attacker wants."""
        if self.target is None:
            return said.fooled(self.labels[rows])
        return said.answered & (said.labels == self.target)

    def gain(self, rows: Index, logits: Logits) -> PerImage:
        """How far what the attacker wants is ahead, in logits: positive where it is reached."""
        return self._climbed(margin, rows, logits)

    def _climbed(self, loss: Loss, rows: Index, logits: Logits) -> PerImage:
        """What the attacker drives up: the loss of the true class, or minus that of the target."""
        if self.target is None:
            return loss(logits, self.labels[rows])
        return -loss(logits, torch.full_like(self.labels[rows], self.target))

    def remember(self, rows: Index, distance: PerImage) -> None:
        """An outer step is over: the smallest adversarial distances so far, of the images at `rows`."""
        nearest = torch.full_like(self.images[:, 0, 0, 0], torch.inf)
        nearest[rows] = distance
        self.history.append(torch.minimum(nearest, self.history[-1]) if self.history else nearest)

    def ids_of(self, rows: Index) -> list[str]:
        """The ids of some images."""
        return [self.ids[i] for i in rows.tolist()]

    @torch.no_grad()
    def predict(self, rows: Index, images: Images) -> Prediction:
        """What the judge says of candidates for the images at `rows`."""
        self.forward_calls[rows] += 1
        parts = [
            self.judge.rows(padded).predict(batch).first(size) for padded, batch, size in padded_batches(rows, images)
        ]
        return join(parts)

    def gradient(self, rows: Index, images: Images, loss: Loss) -> tuple[Images, Prediction]:
        """The gradient of what the attacker drives up in each image, by the source, and the source's prediction."""
        self.gradient_calls[rows] += 1
        gradients, parts = [], []
        for padded, batch, size in padded_batches(rows, images):
            batch = batch.detach().requires_grad_(True)
            with torch.enable_grad():
                prediction = self.source.rows(padded).predict(batch)
                total = self._climbed(loss, padded, prediction.logits).sum()
            # With respect to the images only: the weights' gradients would cost half as much again.
            (gradient,) = torch.autograd.grad(total, batch)
            gradients.append(gradient[:size])
            parts.append(prediction.first(size))
        gradient = torch.cat(gradients)
        flat = gradient.flatten(1)
        healthy = torch.isfinite(flat).all(1) & (flat != 0).any(1)
        self.zero_gradients[rows] += (~healthy).long()
        return torch.nan_to_num(gradient, 0.0, 0.0, 0.0), join(parts)

    def slopes(self, rows: Index, images: Images, classes: Tensor) -> tuple[Tensor, Tensor]:
        """By the source, how far each class in `classes` (N, K) is ahead of the true one, (N, K), and the gradients of
        that, (N, K, channels, height, width). Counts as K gradients."""
        self.gradient_calls[rows] += classes.shape[1]
        gaps, gradients = [], []
        for (padded, batch, size), some in zip(padded_batches(rows, images), classes.split(BATCH), strict=True):
            some = some[torch.arange(len(batch), device=some.device) % size]
            batch = batch.detach().requires_grad_(True)
            with torch.enable_grad():
                logits = self.source.rows(padded).predict(batch).logits
                gap = logits.gather(1, some) - logits.gather(1, self.labels[padded, None])
                parts = [torch.autograd.grad(column.sum(), batch, retain_graph=True)[0] for column in gap.unbind(1)]
            gaps.append(gap[:size].detach())
            gradients.append(torch.stack(parts, 1)[:size])
        slopes = torch.cat(gradients)
        flat = slopes.flatten(2)
        healthy = torch.isfinite(flat).all(2) & (flat != 0).any(2)
        self.zero_gradients[rows] += (~healthy).sum(1)
        return torch.cat(gaps), torch.nan_to_num(slopes, 0.0, 0.0, 0.0)


def padded_batches(rows: Index, images: Images) -> list[tuple[Tensor, Tensor, int]]:
    """(rows, images, real size) in batches of at most BATCH, each of at least PADDED_ROWS by repetition."""
    found = []
    for some, batch in zip(rows.split(BATCH), images.split(BATCH), strict=True):
        size = len(some)
        if size < PADDED_ROWS:
            repeat = torch.arange(PADDED_ROWS, device=some.device) % size
            some, batch = some[repeat], batch[repeat]
        found.append((some, batch, size))
    return found


@dataclass(frozen=True)
class Attack(ABC):
    """An attack is its settings; calling it attacks. Subclasses implement `perturb` and say which norm they measure.

    `target`: the class that counts as success; default: any but the true one.
    """

    target: int | None = field(default=None, kw_only=True)

    @abstractmethod
    def perturb(self, problem: Problem, rows: Index) -> Images:
        """Candidates for the images at `rows`, all of them rightly classified; the clean image where nothing was found."""

    @property
    @abstractmethod
    def norm_name(self) -> str:
        """The norm that `distance` is measured in."""

    @property
    @abstractmethod
    def budget(self) -> float | None:
        """The largest distance allowed; None for a minimum-norm attack."""

    @abstractmethod
    def measure(self, delta: Images) -> PerImage:
        """The size of perturbations."""

    @property
    def name(self) -> str:
        """The name in tables."""
        return type(self).__name__

    def record(self) -> dict[str, Any]:
        """The settings for a ledger row."""
        settings = {key: value for key, value in asdict(self).items() if key != "norm"}
        return {"attack": self.name, "norm": self.norm_name, **settings}

    @final
    def __call__(
        self,
        classifier: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        ids: Sequence[str] | None = None,
        seed: int = 0,
        source: Classifier | None = None,
        progress: Progress | None = None,
    ) -> Adversarial:
        """Attack `images` so that `classifier` answers with another label than the true one, or with the target.

        `source` supplies gradients (default: the classifier itself): another view of the same net, or another net.
        Random draws depend on `seed` and the images' `ids` (default: their content) only. Raises InvalidInput for
        images outside [0, 1], labels that do not fit (with a target: images of that class), or a net in training mode.
        """
        _check(classifier, source, images, labels, ids)
        _check_target(self.target, classifier, labels)
        ids = list(ids) if ids is not None else content_ids(images)
        problem = Problem(classifier, source, images, labels, ids, seed, progress or Silent(), self.target)
        everything = torch.arange(len(images), device=images.device)
        if not len(images):
            return _nothing(images)
        right = problem.predict(everything, images).correct(labels)
        rows = right.nonzero()[:, 0]
        found = images.clone()
        if len(rows):
            found[rows] = self._inside(self.perturb(problem, rows), images[rows])
        return self._measured(problem, found, right)

    def _inside(self, candidates: Images, clean: Images) -> Images:
        """The candidates after a check that they keep to the box and the budget, to rounding."""
        candidates = candidates.detach()
        distance = self.measure(candidates - clean)
        if self.budget is not None and bool((distance > self.budget * (1 + 1e-5) + 1e-6).any()):
            raise AssertionError(f"{self} left its ball: {distance.max().item():g} > {self.budget:g}")
        return candidates.clamp(0, 1)

    def _measured(self, problem: Problem, found: Images, right: Mask) -> Adversarial:
        """Success measured anew on the final images; a minimum-norm attack that failed gives the clean image back."""
        everything = torch.arange(len(found), device=found.device)
        prediction = problem.predict(everything, found)
        success = right & problem.reached(everything, prediction)
        distance = self.measure(found - problem.images)
        if self.budget is None:
            failed = right & ~success
            found = torch.where(failed.view(-1, 1, 1, 1), problem.images, found)
            distance = torch.where(failed, torch.inf, distance)
        return Adversarial(
            found,
            success,
            torch.where(right, distance, 0.0),
            ~right,
            problem.gradient_calls,
            problem.forward_calls,
            prediction.status,
            problem.zero_gradients,
            torch.stack(problem.history, 1) if problem.history else found.new_zeros(len(found), 0),
        )


def _nothing(images: Images) -> Adversarial:
    none = torch.zeros(0, dtype=torch.int64, device=images.device)
    return Adversarial(
        images, none.bool(), images.new_zeros(0), none.bool(), none, none, none, none, images.new_zeros(0, 0)
    )


def _check(
    classifier: Classifier, source: Classifier | None, images: Tensor, labels: Tensor, ids: Sequence[str] | None
) -> None:
    check_images(images, classifier.in_channels)
    if len(labels) != len(images) or labels.is_floating_point():
        raise InvalidInput(f"labels: expected {len(images)} class indices, got {len(labels)} of {labels.dtype}.")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classifier.classes:
        raise InvalidInput(
            f"labels: expected values in 0..{classifier.classes - 1}, got {int(labels.min())} to {int(labels.max())}."
        )
    if ids is not None and len(set(ids)) != len(images):
        raise InvalidInput(f"ids: expected {len(images)} different ones, got {len(set(ids))}.")
    for net in (classifier, source):
        # Views share their parts, so the top module's own flag does not tell.
        if net is not None and any(module.training for module in net.modules()):
            raise InvalidInput("the net is in training mode, in which dropout makes it random. Call net.eval() first.")


def _check_target(target: int | None, classifier: Classifier, labels: Tensor) -> None:
    if target is None:
        return
    if not 0 <= target < classifier.classes:
        raise InvalidInput(f"target: expected a class in 0..{classifier.classes - 1}, got {target}.")
    if bool((labels == target).any()):
        raise InvalidInput(
            f"target: expected images of other classes than {target}, got {int((labels == target).sum())} of it. "
            "Leave them out."
        )


def check_positive(**values: float) -> None:
    """Raise InvalidInput unless each value is a positive number."""
    for name, value in values.items():
        if not value > 0:
            raise InvalidInput(f"{name}: expected a positive number, got {value}.")
