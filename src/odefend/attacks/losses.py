"""Losses that an attack drives up, one number per image. `LOSSES` maps a loss's name to it."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

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


def dlr(logits: Logits, labels: Labels) -> PerImage:
    """Difference of logits ratio: the margin divided by the largest minus the third largest logit, which no scaling of the
    logits changes (Croce & Hein, arXiv 2003.01690). Its gradient hardly lowers the true class where the second and third logits
    are close, so that a few plain steps reach less with it than with the others. Raises InvalidInput for two classes, where it
    is always 1 or -1."""
    top = _largest(logits, 3)
    return margin(logits, labels) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


def targeted_dlr(logits: Logits, labels: Labels, others: Labels) -> PerImage:
    """The lead of one other class for each image divided by the largest logit minus the mean of the third and the fourth (same
    paper). Raises InvalidInput for fewer than four classes."""
    top = _largest(logits, 4)
    return lead(logits, labels, others) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp_min(1e-12)


def _largest(logits: Logits, count: int) -> Tensor:
    if logits.shape[1] < count:
        raise InvalidInput(
            f"loss: expected {count} classes or more for {'dlr' if count == 3 else 'dlr with targets'}, got "
            f"{logits.shape[1]}. Use margin."
        )
    return logits.topk(count, dim=1).values


def targeted_cross_entropy(logits: Logits, labels: Labels, others: Labels) -> PerImage:  # noqa: ARG001
    """The log-probability of one other class for each image."""
    return -cross_entropy(logits, others)


Loss = Callable[[Logits, Labels], PerImage]
"""Of the logits and the true classes: what an attack away from these drives up."""

TargetedLoss = Callable[[Logits, Labels, Labels], PerImage]
"""Of the logits, the true classes and one wrong class for each image: what an attack towards the latter drives up."""

LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "margin": margin, "dlr": dlr}

TARGETED: dict[Loss, TargetedLoss] = {
    cross_entropy: targeted_cross_entropy,
    margin: lead,
    dlr: targeted_dlr,
}
"""What each of the `LOSSES` becomes towards one class."""
