"""The Attack noun: one template that keeps every promise."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, final, get_args

import torch
from torch import Tensor

from odefend.attacks.guard import Guard
from odefend.attacks.problem import BATCH, Problem, SearchPrecision
from odefend.errors import InvalidInput, unknown
from odefend.models import Classifier, check_evaluating, check_ids, check_images, checked_labels
from odefend.norms import LINF, RMS, Norm, added
from odefend.progress import Progress, Silent
from odefend.rng import content_ids
from odefend.tensors import Counts, Images, Index, Mask, PerImage
from odefend.threads import threads_for


@dataclass(frozen=True)
class Adversarial:
    """What an attack found for each image.

    `images`: the adversarial images; the clean image where a minimum-norm attack found nothing.
    `success`: whether the classifier, asked again at the end, answers with a wrong label (with a target: with that one; with
        a guard: and the detector accepts it); never where it was wrong at the start or where its solver failed.
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


@dataclass(frozen=True)
class Attack(ABC):
    """An attack is its settings; calling it attacks. Subclasses implement `perturb` and say which norm they measure.

    `target`: the class that counts as success; default: any but the true one.
    `search_precision`: "full" (the net's own), or "bfloat16" for gradients by torch.autocast, which pays on CPUs with bfloat16
        matrix units and on GPUs, at tolerances of 1e-3 and more. The last step of a search and every judgement are in full.
    """

    target: int | None = field(default=None, kw_only=True)
    search_precision: SearchPrecision = field(default="full", kw_only=True)

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
    def cost(self) -> float:
        """How many gradients it takes for an image, about, early stops included; an answer counts as 0.4 of one."""
        return float(getattr(self, "steps", 20)) * getattr(self, "restarts", 1)

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
        guard: Guard | None = None,
        progress: Progress | None = None,
    ) -> Adversarial:
        """Attack `images` so that `classifier` answers with another label than the true one, or with the target.

        `source` supplies gradients (default: the classifier itself): another view of the same net, or another net. With a
        `guard` an image succeeds only where that detector accepts it as well. Random draws depend on `seed` and the images'
        `ids` (default: their content) only.

        Raises InvalidInput for images that `Classifier.predict` refuses, labels that do not fit (with a target: images of that
        class), ids that are not different strings, or a net in training mode.
        """
        check_images(images, classifier.in_channels)
        images, labels = images.detach(), checked_labels(labels, len(images), classifier.classes)
        check_evaluating(classifier, *([source] if source else []))
        if ids is not None:
            check_ids(ids, len(images))
            if len(set(ids)) != len(ids):
                raise InvalidInput(f"ids: expected {len(ids)} different ones, got {len(set(ids))}.")
        _check_target(self.target, classifier, labels)
        if self.search_precision not in get_args(SearchPrecision):
            raise unknown("search precision", self.search_precision, get_args(SearchPrecision))
        ids = list(ids) if ids is not None else content_ids(images)
        problem = Problem(
            classifier,
            source,
            images,
            labels,
            ids,
            seed,
            progress or Silent(),
            self.target,
            guard,
            self.search_precision,
        )
        if not len(images):
            return _nothing(images)
        with threads_for(images[:BATCH].numel()):
            return self._searched(problem)

    def _searched(self, problem: Problem) -> Adversarial:
        """What the algorithm finds for the images that are right before it."""
        images, labels = problem.images, problem.labels
        everything = torch.arange(len(images), device=images.device)
        right = problem.predict(everything, images).correct(labels)
        rows = right.nonzero()[:, 0]
        found = images.clone()
        if len(rows):
            found[rows] = self._inside(self.perturb(problem, rows), images[rows])
        return self._measured(problem, found, right)

    def _inside(self, candidates: Images, clean: Images) -> Images:
        """The candidates, which an algorithm keeps in the budget to rounding, exactly inside it and inside the box."""
        candidates = candidates.detach().clamp(0, 1)
        if self.budget is None:
            return candidates
        delta = candidates.double() - clean.double()
        distance = self.measure(delta)
        if bool((distance > self.budget * (1 + 1e-3) + 1e-6).any()):
            raise AssertionError(f"{self} left its ball: {distance.max().item():g} > {self.budget:g}")
        # Libraries compute in float32, and their images may be outside by its rounding.
        outside = (distance > self.budget).view(-1, 1, 1, 1)
        return torch.where(outside, added(clean, delta * (self.budget / distance).view(-1, 1, 1, 1)), candidates)

    def _measured(self, problem: Problem, found: Images, right: Mask) -> Adversarial:
        """Success measured anew on the final images; a minimum-norm attack that failed gives the clean image back."""
        everything = torch.arange(len(found), device=found.device)
        standing = problem.stand(everything, found)
        success = right & standing.reached
        distance = self.measure(found.double() - problem.images.double()).to(found)
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
            standing.prediction.status,
            problem.zero_gradients,
            torch.stack(problem.history, 1) if problem.history else found.new_zeros(len(found), 0),
        )


def _nothing(images: Images) -> Adversarial:
    none = torch.zeros(0, dtype=torch.int64, device=images.device)
    return Adversarial(
        images, none.bool(), images.new_zeros(0), none.bool(), none, none, none, none, images.new_zeros(0, 0)
    )


@dataclass(frozen=True)
class BallAttack(Attack):
    """An attack inside a ball: of radius `epsilon` in units of `norm`, pixels being in [0, 1]."""

    epsilon: float
    norm: Norm = LINF

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, self.norm.name)

    @property
    def norm_name(self) -> str:
        return self.norm.name

    @property
    def budget(self) -> float | None:
        return self.epsilon

    def measure(self, delta: Images) -> PerImage:
        return self.norm.size(delta)


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


def check_epsilon(epsilon: float, norm: str) -> None:
    """Raise InvalidInput unless a radius is a number >= 0, and at most 1 where no image is farther from another."""
    if not isinstance(epsilon, Real) or not epsilon >= 0:
        raise InvalidInput(f"epsilon: expected a number >= 0, got {epsilon!r}.")
    if norm in (LINF.name, RMS.name) and epsilon > 1:
        raise InvalidInput(
            f"epsilon: expected at most 1 in {norm}, since pixels are in [0, 1], got {epsilon:g}. A radius of {epsilon:g} on the "
            f"scale of 0..255 is {epsilon:g}/255."
        )
