"""What a gradient costs on this machine now."""

import time

import torch

from odefend.engine import Craft, ModelSpec, Slice
from odefend.experiments.expand import Expansion
from odefend.experiments.parts import Experiment

IMAGES = 16


def seconds_per_gradient(experiment: Experiment) -> float:
    """Seconds that the gradient for one image takes on one thread, for the slowest of the models that are attacked."""
    threads, found, attacked = torch.get_num_threads(), [0.0], dict[ModelSpec, Slice]()
    expansion = Expansion(experiment)
    for task in (task for name in experiment.attacks for task in expansion.known(name)):
        if isinstance(task.unit, Craft):
            attacked.setdefault(task.unit.model, task.unit.images)
    try:
        torch.set_num_threads(1)
        for spec, some in attacked.items():
            images = some.open()[:IMAGES]
            net, asked, times = spec.open(images.ids), images.images.requires_grad_(), []
            for _ in range(2):
                began = time.perf_counter()
                torch.autograd.grad(net(asked).square().sum(), asked)
                times.append((time.perf_counter() - began) / spec.passes)
            found.append(min(times) / len(images))
    finally:
        torch.set_num_threads(threads)
    return max(found)
