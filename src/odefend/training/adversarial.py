"""Images that a net is trained against: moved uphill on its loss, inside a ball around the clean ones."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from odefend.models import Classifier
from odefend.tensors import Images, Labels
from odefend.training.recipe import Adversarial


def attacked(
    net: Classifier, images: Images, labels: Labels, how: Adversarial, epsilon: float, draws: Tensor
) -> Images:
    """The images after the recipe's steps of `how.length` times `epsilon`, projected into the L-inf ball of that radius and
    [0, 1]; `draws` of the images' shape, uniform in [0, 1), choose where in the ball each begins, and with `how.ccat` the ball of
    each, whose radius is then anything up to `epsilon`.

    The net is asked in evaluation mode, so that dropout and running statistics are those it will be attacked with.
    """
    mode, dtype = net.training, next(net.parameters()).dtype
    net.eval()
    try:
        images = images.to(dtype)
        aim = _trades(net, images) if how.beta else _confidence(labels) if how.ccat else _entropy(labels)
        draws, radius = draws.to(images), torch.full_like(images[:, :1, :1, :1], epsilon)
        if how.ccat:  # How sure to be depends on how far an image was moved, so all distances are learned from.
            radius = radius * draws[:, :1, :1, :1]
        moved = (images + radius * (2 * draws - 1)).clamp(0, 1)
        for _ in range(how.steps):
            point = moved.detach().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(aim(net(point)), point)
            # Where a solve fails there may be no number to follow: such a pixel stays.
            moved = moved + radius * how.length * gradient.nan_to_num(0.0, 0.0, 0.0).sign()
            moved = (images + (moved - images).clamp(-radius, radius)).clamp(0, 1)
        return moved.detach()
    finally:
        net.train(mode)


def _entropy(labels: Labels) -> Callable[[Tensor], Tensor]:
    return lambda logits: F.cross_entropy(logits, labels, reduction="sum")


def _confidence(labels: Labels) -> Callable[[Tensor], Tensor]:
    """The probability of the likeliest wrong class."""
    return lambda logits: logits.log_softmax(1).scatter(1, labels[:, None], -torch.inf).amax(1).sum()


def _trades(net: Classifier, images: Images) -> Callable[[Tensor], Tensor]:
    """How far the answer is from the one to the clean images."""
    with torch.no_grad():
        clean = net(images)
    return lambda logits: divergence(clean, logits)


def divergence(clean: Tensor, logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the probabilities that `logits` give from those of the logits of clean images, summed over
    the images."""
    return F.kl_div(logits.log_softmax(1), clean.log_softmax(1), reduction="sum", log_target=True)


def unsure(logits: Tensor, labels: Labels, share: Tensor) -> Tensor:
    """Cross-entropy with a target between certainty and ignorance: the label with a probability of `share`, one number for each
    image, and else any class; summed."""
    said = logits.log_softmax(1)
    certain = said.gather(1, labels[:, None])[:, 0]
    return -(share * certain + (1 - share) * said.mean(1)).sum()
