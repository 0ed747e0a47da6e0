"""What units of work are about: views of nets and slices of data sets. Small values that can be sent to another process, and that
open the real thing there."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch

from odefend.attacks import Expectation
from odefend.data import LabelledImages, named_data, shuffled, tamper, tell_of_fewer
from odefend.defenses import DEFENSES, Defense, RandomizedNet, named_defense
from odefend.errors import InvalidInput
from odefend.evaluation.ledger import canonical
from odefend.models import Classifier, ODENet, SolverSettings, open_net, weights_digest
from odefend.version import code_version

ATTACKER = 1
"""What an attacker adds to the seed of a defense whose draws it does not know. Judges add nothing."""


@lru_cache(maxsize=8)
def opened_net(name: str) -> Classifier:
    """A trained net, read once."""
    return open_net(name)


@lru_cache(maxsize=8)
def _images(data: str, split: str, options: str) -> LabelledImages:
    return named_data(data, split, json.loads(options))


@lru_cache(maxsize=8)
def _drawn(data: str, split: str, options: str, sample: int) -> list[int]:
    """The images of a split in a random order."""
    return shuffled(_images(data, split, options).ids, sample)


@dataclass(frozen=True)
class Defended:
    """A defense by its name and its settings as JSON: see `defenses.named_defense`."""

    name: str
    settings: str = "{}"

    def open(self, reseed: int = 0) -> Defense:
        """The defense itself; of a random one, with that many added to its seed."""
        settings = json.loads(self.settings)
        return named_defense(self.name, _reseeded(self.name, settings, reseed) if reseed else settings)

    @property
    def text(self) -> str:
        """As rows name it: name and settings as canonical JSON."""
        return canonical({"name": self.name} | json.loads(self.settings))

    @property
    def passes(self) -> int:
        """Through the net, for an answer."""
        return int(getattr(self.open(), "draws", 1))


def _reseeded(name: str, settings: dict[str, Any], by: int) -> dict[str, Any]:
    """The settings with another seed, where a defense or that whose draws it takes has one."""
    if "defense" in settings:
        inner = {key: value for key, value in settings["defense"].items() if key != "name"}
        return settings | {"defense": {"name": (of := settings["defense"]["name"]), **_reseeded(of, inner, by)}}
    if "seed" in {field.name for field in fields(DEFENSES[name])}:
        return settings | {"seed": settings.get("seed", 0) + by}
    return settings


@dataclass(frozen=True)
class View:
    """A trained net as it is attacked or judged, or as gradients are taken of it; `tolerance` is None for nets without a
    solver. `method` (None: the net's own), `step` and `adjoint_tolerance` as in `models.SolverSettings`.

    With a `defense` it is the net behind it. Of one that draws at random, an attacker who knows the defense and not its draws
    looks at `draws` others, of a seed of their own, averaged into an `Expectation`; with 0 it is the defense as it is, whose
    draws, unless a judge numbers them, are of an image's content.
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
    defense: Defended | None = None
    draws: int = 0

    def open(self, ids: Sequence[str] = ()) -> Classifier:
        """The classifier itself; `ids` of the images that it is for, where draws are averaged."""
        net = self.solved()
        if self.defense is None:
            return net
        defended = self.defense.open(reseed=ATTACKER if self.draws else 0)(net)
        if not self.draws or not isinstance(defended, RandomizedNet):
            return defended
        return Expectation([defended.draw(ids, index) for index in range(self.draws)])

    def solved(self) -> Classifier:
        """The net without its defense."""
        net = opened_net(self.net)
        if not isinstance(net, ODENet):
            return net
        how = {"gradient": self.gradient, "end": self.end, "coupling": self.coupling, "max_steps": self.max_steps}
        if self.method is not None or self.step is not None:
            how |= {"method": self.method or net.settings.method, "step": self.step}
        return net.at(self.tolerance, adjoint_tolerance=self.adjoint_tolerance, **how)

    @property
    def way(self) -> str:
        """How gradients are taken, as in "adjoint at 1e-06" or "unrolled, rk4 in steps of 0.1"."""
        back = "" if self.adjoint_tolerance is None else f" at {self.adjoint_tolerance:g}"
        steps = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.gradient}{back}" + (f", {self.method}{steps}" if self.method else "")

    @property
    def random(self) -> bool:
        """Whether it is behind a defense that draws."""
        return self.defense is not None and isinstance(self.defense.open()(self.solved()), RandomizedNet)

    @property
    def passes(self) -> int:
        """Through the net, for an answer."""
        if self.defense is None:
            return 1
        return self.defense.passes * (max(self.draws, 1) if self.random else 1)

    def identity(self) -> dict[str, Any]:
        """Everything that decides its answers, for the digest of a unit: also the weights of what a defense puts before it."""
        whole = {} if self.defense is None else {"defended": weights_digest(self.defense.open()(self.solved()))}
        return self.record() | {"at": asdict(self)} | whole

    def defended(self) -> str | None:
        """The defense and its settings, as canonical JSON; None without one."""
        return self.defense and self.defense.text

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
            "step": self._step(solver) if solver else None,
            "coupling": self.coupling if solver else None,
            "max_steps": self.max_steps if solver else None,
            "code_version": code_version(),
        }

    def _step(self, solver: SolverSettings) -> float | None:
        """The size of the solver's steps, which another method does not take over from the net's own."""
        return self.step if self.method is not None or self.step is not None else solver.step


def as_trained(net: str) -> View:
    """A net, at the tolerance of its training if it has a solver."""
    opened = opened_net(net)
    if not isinstance(opened, ODENet):
        return View(net)
    at = opened.settings.tolerance
    assert isinstance(at, float)
    return View(net, at)


def data_of(net: str) -> str:
    """The data set that a net was trained on. Raises InvalidInput where it does not say, or where that took options, which units of
    work know nothing of."""
    card = opened_net(net).card
    if card is None:
        raise InvalidInput(f"{net}: expected a net with a card, which tells its data set.")
    if options := card.recipe.get("data_options"):
        raise InvalidInput(
            f"{net}: expected a net trained on a data set without options, got {card.data} with {options}."
        )
    return card.data


@dataclass(frozen=True)
class Slice:
    """Images start:stop of one split of a data set with `options` as JSON; `changed`: each of them as a tampering leaves it (see
    `data.tamper`).

    `sample` is the seed of a random order that they are taken in, as by `LabelledImages.sample`; None: the order of the data set,
    in which the first need be no sample.
    """

    data: str
    split: str
    start: int
    stop: int
    changed: str | None = None
    sample: int | None = None
    options: str = "{}"

    def open(self) -> LabelledImages:
        """The images."""
        rows: slice | list[int] = slice(self.start, self.stop)
        if self.sample is not None:
            rows = _drawn(self.data, self.split, self.options, self.sample)[rows]
        found = _images(self.data, self.split, self.options)[rows]
        if self.changed is None:
            return found
        pixels = (255 * found.images).round().to(torch.uint8)
        return replace(found, pixels=tamper(pixels, found.ids, self.changed))


def shards(data: str, split: str, count: int, size: int, sample: int | None = None) -> list[Slice]:
    """So many images of a split, all of them where it has fewer, in slices of `size`: the first, or a random sample of a seed."""
    there = len(Slice(data, split, 0, count).open())
    tell_of_fewer(data, split, count, there)
    count = min(count, there)
    return [Slice(data, split, at, min(at + size, count), sample=sample) for at in range(0, count, size)]
