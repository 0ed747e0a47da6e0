"""What an algorithm works on: the images under attack and the nets, with an account of every call."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from odefend.attacks.guard import Guard
from odefend.attacks.losses import TARGETED, Loss, lead, margin
from odefend.errors import InvalidInput
from odefend.models import Classifier, Prediction, join
from odefend.progress import Progress
from odefend.solver import PADDED_ROWS
from odefend.tensors import Images, Index, Labels, Logits, Mask, PerImage

BATCH = 256
"""Largest number of images that an attack sends through a net at once."""

SearchPrecision = Literal["full", "bfloat16"]
"""What gradients are computed in: the net's own precision, or bfloat16 where torch.autocast knows how."""


@dataclass(frozen=True)
class Standing:
    """How candidates stand with a net.

    `reached`: where they are what the attacker wants. `gain`: how far that is ahead, in logits: positive where the wanted
    class leads; with a guard, the smaller of that and the detector's slack.
    """

    prediction: Prediction
    reached: Mask
    gain: PerImage


@dataclass(frozen=True)
class Ascent:
    """What the source says of images: the gradient to follow, how high they are on the way that it leads, as a number that
    means something only beside others of the same image, and how they stand."""

    gradient: Images
    height: PerImage
    seen: Standing


class Problem:
    """The images under attack and the two nets: `judge` decides success, `source` gives gradients.

    `target` is the class that the attacker wants; None: any but the true one. `guard` is a detector to be slipped past.
    Algorithms name images by their position; every call is padded to PADDED_ROWS images, so that an answer does not change
    in its last bits when others leave the active set.
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
        guard: Guard | None = None,
        search_precision: SearchPrecision = "full",
    ) -> None:
        self.target, self.guard, self.search_precision = target, guard, search_precision
        self.judge, self.source = judge, source or judge
        self.images, self.labels, self.ids, self.seed, self.progress = images, labels, tuple(ids), seed, progress
        count = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        self.gradient_calls, self.forward_calls, self.zero_gradients = count, count.clone(), count.clone()
        self.history: list[PerImage] = []

    def _standing(self, rows: Index, said: Prediction, slack: PerImage | None) -> Standing:
        gain = self._climbed(margin, rows, said.logits)
        reached = (
            said.answered & (said.labels == self.target) if self.target is not None else said.fooled(self.labels[rows])
        )
        if slack is not None:
            reached, gain = reached & (slack >= 0), torch.minimum(gain, slack)
        return Standing(said, reached, gain)

    def _climbed(self, loss: Loss, rows: Index, logits: Logits) -> PerImage:
        """What the attacker drives up: the loss of the true class, or minus that of the target."""
        if self.target is None:
            return loss(logits, self.labels[rows])
        return -loss(logits, torch.full_like(self.labels[rows], self.target))

    def _driven(self, loss: Loss, rows: Index, logits: Logits, towards: Labels | None) -> tuple[PerImage, PerImage]:
        """What a step drives up, and what is positive once the net is fooled."""
        if towards is None:
            return self._climbed(loss, rows, logits), self._climbed(margin, rows, logits)
        labels = self.labels[rows]
        return TARGETED[loss](logits, labels, towards), lead(logits, labels, towards)

    def remember(self, rows: Index, distance: PerImage) -> None:
        """An outer step is over: the smallest adversarial distances so far, of the images at `rows`."""
        nearest = torch.full_like(self.images[:, 0, 0, 0], torch.inf)
        nearest[rows] = distance
        self.history.append(torch.minimum(nearest, self.history[-1]) if self.history else nearest)

    def likeliest(self, rows: Index, count: int) -> Tensor:
        """The wrong classes with the largest logits of the clean images at `rows`, (N, K): `count` of them, or all. With a
        target: that one."""
        if self.target is not None:
            return torch.full_like(rows[:, None], self.target)
        logits = self.predict(rows, self.images[rows]).logits
        logits = logits.scatter(1, self.labels[rows, None], -torch.inf)
        return logits.topk(min(count, self.judge.classes - 1), dim=1).indices

    def part(self, source: Classifier) -> "Problem":
        """The same images for one of several attacks, with gradients of `source`: calls are counted together, and outer steps
        apart."""
        part = copy(self)
        part.source, part.history = source, []
        return part

    def _count(self, calls: Tensor, rows: Index, number: int | Tensor = 1) -> None:
        """Add to the account of the images at `rows`, of which an attack may follow several candidates at once."""
        calls.index_add_(0, rows, torch.zeros_like(rows) + number)

    def ids_of(self, rows: Index) -> list[str]:
        """The ids of some images."""
        return [self.ids[i] for i in rows.tolist()]

    @torch.no_grad()
    def predict(self, rows: Index, images: Images) -> Prediction:
        """What the judge says of candidates for the images at `rows`."""
        self._count(self.forward_calls, rows)
        parts = [
            self.judge.rows(padded).predict(batch).first(size) for padded, batch, size in padded_batches(rows, images)
        ]
        return join(parts)

    @torch.no_grad()
    def stand(self, rows: Index, images: Images) -> Standing:
        """How candidates for the images at `rows` stand with the judge."""
        said, slack = self.predict(rows, images), None
        if self.guard is not None:
            parts = padded_batches(rows, images)
            slack = torch.cat([self.guard.slack(batch, self.ids_of(some))[:size] for some, batch, size in parts])
        return self._standing(rows, said, slack)

    def gradient(
        self, rows: Index, images: Images, loss: Loss, *, last: bool = False, towards: Labels | None = None
    ) -> tuple[Images, Standing]:
        """The gradient of what the attacker drives up in each image, and how the images stand, both by the source; see
        `ascend`."""
        found = self.ascend(rows, images, loss, last=last, towards=towards)
        return found.gradient, found.seen

    def ascend(
        self, rows: Index, images: Images, loss: Loss, *, last: bool = False, towards: Labels | None = None
    ) -> Ascent:
        """What the source says of candidates for the images at `rows`, with the gradient of what the attacker drives up.

        `towards`: one wrong class for each image, towards which the loss is driven. The `last` steps of a search are computed
        in full precision whatever `search_precision` says.
        """
        self._count(self.gradient_calls, rows)
        gradients, heights, parts, slacks = [], [], [], []
        batches = padded_batches(rows, images)
        wanted = [None] * len(batches) if towards is None else towards.split(BATCH)
        for (padded, batch, size), some in zip(batches, wanted, strict=True):
            batch = batch.detach().requires_grad_(True)
            with torch.enable_grad(), self._autocast(last):
                prediction = self.source.rows(padded).predict(batch)
                prediction = replace(prediction, logits=prediction.logits.to(batch.dtype))
                climb, ahead = self._driven(
                    loss, padded, prediction.logits, None if some is None else some[padding(size)]
                )
                if self.guard is None:
                    # With respect to the images only: the weights' gradients would cost half as much again.
                    (gradient,), height = torch.autograd.grad(climb.sum(), batch), climb
                else:
                    slack = self.guard.searched(batch, self.ids_of(padded))
                    height = self.guard.height(climb, ahead, slack)
                    gradient = self.guard.joined(batch, climb, ahead, slack)
                    slacks.append(slack.detach()[:size])
            gradients.append(gradient[:size])
            heights.append(height.detach()[:size])
            parts.append(prediction.first(size))
        gradient = torch.cat(gradients)
        flat = gradient.flatten(1)
        healthy = torch.isfinite(flat).all(1) & (flat != 0).any(1)
        self._count(self.zero_gradients, rows, (~healthy).long())
        standing = self._standing(rows, join(parts), torch.cat(slacks) if slacks else None)
        return Ascent(torch.nan_to_num(gradient, 0.0, 0.0, 0.0), torch.cat(heights), standing)

    def confirm(self, rows: Index, images: Images, seen: Standing, *, last: bool = False) -> Standing:
        """How candidates stand with the judge, given how they stood with the source in `gradient`: asked again where that
        can differ. Of a search in bfloat16, or with a stand-in for the detector, only successes are asked about, and the
        rest is believed: that misses some, and wins none that is not there."""
        if self.source is not self.judge:
            return self.stand(rows, images)
        low = self.search_precision != "full" and not last
        stand_in = self.guard is not None and self.guard.source is not None
        if not (low or stand_in) or not seen.reached.any():
            return seen
        (doubtful,) = seen.reached.nonzero(as_tuple=True)
        asked = self.stand(rows[doubtful], images[doubtful])
        said = {name: value.clone() for name, value in vars(seen.prediction).items()}
        for name, value in said.items():
            value[doubtful] = getattr(asked.prediction, name)
        reached, gain = seen.reached.clone(), seen.gain.clone()
        reached[doubtful], gain[doubtful] = asked.reached, asked.gain
        return Standing(Prediction(**said), reached, gain)

    def _autocast(self, last: bool) -> torch.autocast:
        low = self.search_precision != "full" and not last
        return torch.autocast(self.images.device.type, torch.bfloat16, enabled=low)

    def slopes(self, rows: Index, images: Images, classes: Tensor) -> tuple[Tensor, Tensor]:
        """By the source, how far each class in `classes` (N, K) is ahead of the true one, (N, K), and the gradients of
        that, (N, K, channels, height, width). Counts as K gradients."""
        self._count(self.gradient_calls, rows, classes.shape[1])
        if self.guard is not None:
            raise InvalidInput(
                "guard: expected none for an attack that steps to linearized boundaries. Use CarliniWagner."
            )
        gaps, gradients = [], []
        for (padded, batch, size), some in zip(padded_batches(rows, images), classes.split(BATCH), strict=True):
            some = some[padding(size)]
            batch = batch.detach().requires_grad_(True)
            with torch.enable_grad(), self._autocast(last=False):
                logits = self.source.rows(padded).predict(batch).logits.to(batch.dtype)
                gap = logits.gather(1, some) - logits.gather(1, self.labels[padded, None])
                parts = [torch.autograd.grad(column.sum(), batch, retain_graph=True)[0] for column in gap.unbind(1)]
            gaps.append(gap[:size].detach())
            gradients.append(torch.stack(parts, 1)[:size])
        slopes = torch.cat(gradients)
        flat = slopes.flatten(2)
        healthy = torch.isfinite(flat).all(2) & (flat != 0).any(2)
        self._count(self.zero_gradients, rows, (~healthy).sum(1))
        return torch.cat(gaps), torch.nan_to_num(slopes, 0.0, 0.0, 0.0)


def padded_batches(rows: Index, images: Images) -> list[tuple[Tensor, Tensor, int]]:
    """(rows, images, real size) in batches of at most BATCH, each of at least PADDED_ROWS by repetition."""
    found = []
    for some, batch in zip(rows.split(BATCH), images.split(BATCH), strict=True):
        size = len(some)
        if size < PADDED_ROWS:
            some, batch = some[padding(size)], batch[padding(size)]
        found.append((some, batch, size))
    return found


def padding(size: int) -> Index:
    """Positions that fill a batch of that size up to PADDED_ROWS by repetition."""
    return torch.arange(max(size, PADDED_ROWS)) % size
