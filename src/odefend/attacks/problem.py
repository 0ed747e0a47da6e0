"""What an algorithm works on: the images under attack and the nets, with an account of every call."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from odefend.attacks.losses import margin
from odefend.models import Classifier, Prediction, join
from odefend.progress import Progress
from odefend.solver import PADDED_ROWS
from odefend.tensors import Images, Index, Labels, Logits, Mask, PerImage

BATCH = 256
"""Largest number of images that an attack sends through a net at once."""

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
