"""Losses that an attack drives up, one number per image. `LOSSES` maps a loss's name to it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from odefend.errors import InvalidInput
from odefend.tensors import Labels, Logits, PerImage


def cross_entropy(logits: Logits, labels: Labels) -> PerImage:
    """Minus the log-probability of the true class."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Logits, labels: Labels) -> PerImage:
    """Largest other logit minus the true class's: positive where the image is misclassified."""
    true = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - true


def lead(logits: Logits, labels: Labels, others: Labels) -> PerImage:
    """The logit of one other class for each image minus the true class's."""
    return logits.gather(1, others[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]


def logits_ratio(logits: Logits, labels: Labels) -> PerImage:
    """The margin divided by the largest minus the third largest logit, which no scaling of the logits changes (DLR: Croce &
    Hein, arXiv 2003.01690). Its gradient hardly lowers the true class where the second and third logits are close, so that
    a few plain steps reach less with it than with the others. Raises InvalidInput for two classes, where it is always 1 or
    -1."""
    if logits.shape[1] < 3:
        raise InvalidInput("loss: expected 3 classes or more for the difference-of-logits ratio, got 2. Use margin.")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


LOSSES: dict[str, Callable[[Logits, Labels], PerImage]] = {
    "cross-entropy": cross_entropy,
    "margin": margin,
    "logits-ratio": logits_ratio,
}
