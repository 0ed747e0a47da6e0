"""Losses that an attack drives up, one number per image; all are right for two classes as well."""

import torch
import torch.nn.functional as F

from odefend.tensors import Labels, Logits, PerImage


def cross_entropy(logits: Logits, labels: Labels) -> PerImage:
    """Minus the log-probability of the true class."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Logits, labels: Labels) -> PerImage:
    """Largest other logit minus the true class's: positive where the image is misclassified."""
    true = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - true
