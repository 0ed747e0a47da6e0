"""What units of work are about: views of nets and slices of data sets. Small values that can be sent to another process, and that
open the real thing there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from odefend.attacks import Expectation
from odefend.data import DATASETS, LabelledImages, tamper
from odefend.defenses import LogUniform, RandomTolerance
from odefend.errors import unknown
from odefend.models import Classifier, ODENet, load, weights_digest
from odefend.version import code_version


@lru_cache(maxsize=8)
def opened_net(name: str) -> Classifier:
    """A trained net, read once."""
    return load(name)


@lru_cache(maxsize=8)
def _images(data: str, split: str) -> LabelledImages:
    if data not in DATASETS:
        raise unknown("data set", data, DATASETS)
    return DATASETS[data](split)


@dataclass(frozen=True)
class View:
    """A trained net as it is attacked or judged, or as gradients are taken of it; `tolerance` is None for nets without a
    solver. `method` (None: the net's own), `step` and `adjoint_tolerance` as in `models.SolverSettings`.

    With `random`, tolerances are drawn from that distribution for each image, and `draws` of them are averaged into an
    `Expectation`: what an attacker looks at who knows the distribution and not the draw.
    """

    net: str
    tolerance: float | None = None
    gradient: str = "unrolled"
    end: str = "interpolate"
    coupling: str = "sample"
    max_steps: int = 1000
    method: str | None = None
    step: float | None = None
    adjoint_tolerance: float | None = None
    random: LogUniform | None = None
    draws: int = 1

    def open(self, ids: Sequence[str] = ()) -> Classifier:
        """The classifier itself; `ids` of the images that it is for, where there is something random in it."""
        net = opened_net(self.net)
        if not isinstance(net, ODENet):
            return net
        how = {"gradient": self.gradient, "end": self.end, "coupling": self.coupling, "max_steps": self.max_steps}
        if self.method is not None or self.step is not None:
            how |= {"method": self.method or net.settings.method, "step": self.step}
        net = net.at(self.tolerance, adjoint_tolerance=self.adjoint_tolerance, **how)
        if self.random is None:
            return net
        # Seed 1: draws that no judge makes, whose seed is 0.
        defended = RandomTolerance(self.random, seed=1)(net)
        return Expectation([defended.draw(ids, index) for index in range(self.draws)])

    @property
    def way(self) -> str:
        """How gradients are taken, as in "adjoint at 1e-06" or "unrolled, rk4 in steps of 0.1"."""
        back = "" if self.adjoint_tolerance is None else f" at {self.adjoint_tolerance:g}"
        steps = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.gradient}{back}" + (f", {self.method}{steps}" if self.method else "")

    def record(self) -> dict[str, Any]:
        """The columns that say which net, solved how."""
        net = opened_net(self.net)
        solver = net.settings if isinstance(net, ODENet) else None
        return {
            "net": self.net,
            "net_digest": weights_digest(net),
            "training_seed": net.card.seed if net.card else None,
            "precision": "float32",
            "gradient": self.gradient if solver else None,
            "end": self.end if solver else None,
            "method": (self.method or solver.method) if solver else None,
            "coupling": self.coupling if solver else None,
            "max_steps": self.max_steps if solver else None,
            "code_version": code_version(),
        }


@dataclass(frozen=True)
class Slice:
    """Images start:stop of one split of a data set; `changed`: each of them as a tampering leaves it (see `data.tamper`)."""

    data: str
    split: str
    start: int
    stop: int
    changed: str | None = None

    def open(self) -> LabelledImages:
        """The images."""
        found = _images(self.data, self.split)[self.start : self.stop]
        if self.changed is None:
            return found
        pixels = (255 * found.images).round().to(torch.uint8)
        return replace(found, pixels=tamper(pixels, found.ids, self.changed))


def shards(data: str, split: str, count: int, size: int) -> list[Slice]:
    """The first images of a split, all of them where it has fewer, in slices of `size`."""
    count = min(count, len(Slice(data, split, 0, count).open()))
    return [Slice(data, split, at, min(at + size, count)) for at in range(0, count, size)]
