"""What adapters to other libraries of attacks share.

An adapted attack gives the same for the same images in the same order and the same seed; unlike odefend's own, its result
for an image may depend on the others. It asks the nets without saying for which image, so calls are counted as a mean over
the images, rounded up, and a net that keeps something for each image, such as a draw of a random defense, is attacked one
image at a time.
"""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from odefend.attacks.problem import BATCH, Problem
from odefend.errors import InvalidInput, MissingExtra
from odefend.models import Classifier
from odefend.tensors import Images, Index


class BareLogits(nn.Module):
    """A classifier's logits for libraries that take gradients by backward(), which reaches the images only here, not the
    weights; counts the images it is asked about.

    `image`: the position, (1,), of the only image it is asked about, of which a call may have several candidates; None for
    a net that keeps nothing for each image."""

    def __init__(self, net: Classifier, search_precision: str = "full", image: Index | None = None) -> None:
        super().__init__()
        self.net, self.low, self.image = net, search_precision != "full", image
        self.forwards = self.gradients = 0

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            self.gradients += len(images)
        else:
            self.forwards += len(images)
        fixed = {name: weight.detach() for name, weight in self.net.named_parameters()}
        dtype = next((weight.dtype for weight in fixed.values() if weight.is_floating_point()), images.dtype)
        # A step may leave the box by a rounding error, which a classifier refuses.
        inside = images.clamp(0, 1).to(dtype)
        net = self.net if self.image is None else self.net.rows(self.image.expand(len(images)))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.low):
            return functional_call(net, fixed, (inside,)).to(images.dtype)

    def account(self, problem: Problem, rows: Index) -> None:
        """Book the calls."""
        problem.forward_calls[rows] += -(-self.forwards // len(rows))
        problem.gradient_calls[rows] += -(-self.gradients // len(rows))


def shares(problem: Problem, rows: Index) -> Iterator[tuple[Index, BareLogits]]:
    """The images at `rows` in shares that a library may be given at once, each with the source of gradients for it."""
    source, precision = problem.source, problem.search_precision
    if source.rows(rows[:1]) is source:
        for some in rows.split(BATCH):
            yield some, BareLogits(source, precision).eval()
    else:
        for one in rows.split(1):
            yield one, BareLogits(source, precision, image=one).eval()


def widened(clean: Images, found: Tensor) -> Images:
    """What a library found in float32, in which alone all of them work, as images of the caller's precision."""
    return (clean + (found.detach().float() - clean.float()).to(clean)).clamp(0, 1)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeded global generators, which are afterwards as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def check_unguarded(problem: Problem, name: str) -> None:
    """Raise InvalidInput where there is a detector to slip past."""
    if problem.guard is not None:
        raise InvalidInput(f"guard: expected none, since {name} does not know it. Use PGD or CarliniWagner.")


def library(name: str) -> Any:
    """A module of an optional package. Raises MissingExtra where that is not installed."""
    try:
        # What these packages import of others in outdated ways is not the user's concern.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except ImportError as error:
        raise MissingExtra(
            f"{name.split('.')[0]} is not installed ({error}). Install it with: pip install 'odefend[attacks]'"
        ) from error
