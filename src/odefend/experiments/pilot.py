"""What a gradient costs on this machine now."""

import time
from collections.abc import Mapping

import torch

from odefend.engine import Craft, ModelSpec, Slice, Unit
from odefend.experiments.expand import Expansion

IMAGES = 16


def expected_seconds(expansion: Expansion) -> dict[Unit, float]:
    """For each unit of work that is known, about how long it takes on one thread: its cost in gradients, each of which takes
    as long as one of the model whose gradients it follows; where no gradient is followed, as long as the slowest."""
    units = [task.unit for task in expansion.tasks()]
    followed: dict[ModelSpec, Slice] = {}
    for unit in units:
        if isinstance(unit, Craft):
            followed.setdefault(unit.source or unit.model, unit.images)
    seconds = _timed(followed)
    slowest = max(seconds.values(), default=0.0)
    return {
        unit: unit.cost * (seconds[unit.source or unit.model] if isinstance(unit, Craft) else slowest) for unit in units
    }


def _timed(models: Mapping[ModelSpec, Slice]) -> dict[ModelSpec, float]:
    """Seconds that the gradient for one image takes on one thread, by model."""
    threads, found = torch.get_num_threads(), dict[ModelSpec, float]()
    try:
        torch.set_num_threads(1)
        for spec, some in models.items():
            images = some.open()[:IMAGES]
            net, asked = spec.open(images.ids), images.images.requires_grad_()
            found[spec] = min(_gradient(net, asked) for _ in range(2)) / spec.passes / len(images)
    finally:
        torch.set_num_threads(threads)
    return found


def _gradient(net: torch.nn.Module, images: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.autograd.grad(net(images).square().sum(), images)
    return time.perf_counter() - began
