"""What a gradient costs on this machine now."""

import time

import torch

from odefend.experiments.expand import Expansion
from odefend.experiments.parts import Experiment

IMAGES = 16


def seconds_per_gradient(experiment: Experiment) -> float:
    """Seconds that the gradient for one image takes on one thread, for the slowest of the models that are attacked."""
    expansion, threads, found = Expansion(experiment), torch.get_num_threads(), [0.0]
    attacked = dict.fromkeys(task.unit.model for name in experiment.attacks for task in expansion.known(name))
    data = next(iter(experiment.data))
    images = expansion.slices(data, IMAGES)[0].open()
    try:
        torch.set_num_threads(1)
        for spec in attacked:
            net, asked = spec.open(images.ids), images.images.requires_grad_()
            times = []
            for _ in range(2):
                began = time.perf_counter()
                torch.autograd.grad(net(asked).square().sum(), asked)
                times.append((time.perf_counter() - began) / spec.passes)
            found.append(min(times) / len(images))
    finally:
        torch.set_num_threads(threads)
    return max(found)
