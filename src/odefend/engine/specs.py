"""What units of work are about: models and images as small values that can be sent to another process, and that open the real thing
there."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch

from odefend.attacks import Expectation
from odefend.data import LabelledImages, named_data, shuffled, tamper
from odefend.defenses import Defense, RandomizedNet, defense_class, named_defense
from odefend.errors import InvalidInput
from odefend.ledger.storage import canonical
from odefend.models import Classifier, ODENet, Solving, open_net, weights_digest
from odefend.named import class_digest

ATTACKER = 1
"""What an attacker adds to the seed of a defense whose draws it does not know. Judges add nothing."""


@lru_cache(maxsize=64)
def _weights(net: str, options: str, wrap: str) -> str:
    return weights_digest(opened_net(net, options, wrap))


@lru_cache(maxsize=8)
def opened_net(name: str, options: str = "{}", wrap: str = "{}") -> Classifier:
    """A net by its name, read once; `options` and `wrap` as JSON: see `models.open_net`."""
    return open_net(name, json.loads(options), json.loads(wrap))


@dataclass(frozen=True)
class DefenseSpec:
    """A defense by its name and its settings as JSON: see `defenses.named_defense`."""

    name: str
    settings: str = "{}"

    @classmethod
    def read(cls, text: str) -> "DefenseSpec":
        """From its `text`."""
        settings = json.loads(text)
        return cls(settings.pop("name"), canonical(settings))

    def open(self, reseed: int = 0) -> Defense:
        """The defense itself; of a random one, with that many added to its seed."""
        settings = json.loads(self.settings)
        return named_defense(self.name, _reseeded(self.name, settings, reseed) if reseed else settings)

    @property
    def text(self) -> str:
        """Name and settings as canonical JSON, as in rows."""
        return canonical({"name": self.name} | json.loads(self.settings))

    @property
    def digest(self) -> str | None:
        """Of the file that a defense of the user's own is defined in."""
        return class_digest(defense_class(self.name))

    @property
    def sigma(self) -> float | None:
        """The standard deviation of the noise that it adds, if it does."""
        return json.loads(self.settings).get("sigma")

    @property
    def passes(self) -> int:
        """Through the net, for an answer."""
        return int(getattr(self.open(), "draws", 1))


def _reseeded(name: str, settings: dict[str, Any], by: int) -> dict[str, Any]:
    """The settings with another seed, where a defense or that whose draws it takes has one."""
    if "defense" in settings:
        inner = {key: value for key, value in settings["defense"].items() if key != "name"}
        return settings | {"defense": {"name": (of := settings["defense"]["name"]), **_reseeded(of, inner, by)}}
    if "seed" in {field.name for field in fields(defense_class(name))}:
        return settings | {"seed": settings.get("seed", 0) + by}
    return settings


@dataclass(frozen=True)
class ModelSpec:
    """A net as it is attacked or judged, or as gradients are taken of it; `options` and `wrap`, as JSON, of one of the user's own:
    see `models.open_net`. `tolerance` is None for nets without a solver, and for one of the user's own solved as it asks for.
    `method` (None: the net's own), `step` and `adjoint_tolerance` as in `models.SolverSettings`.

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
    defense: DefenseSpec | None = None
    draws: int = 0
    options: str = "{}"
    wrap: str = "{}"

    @property
    def net_itself(self) -> Classifier:
        """The net as it was trained or built."""
        return opened_net(self.net, self.options, self.wrap)

    def open(self, ids: Sequence[str] = ()) -> Classifier:
        """The classifier itself; `ids` of the images that it is for, where draws are averaged."""
        net = self.undefended()
        if self.defense is None:
            return net
        defended = self.defense.open(reseed=ATTACKER if self.draws else 0)(net)
        if not self.draws or not isinstance(defended, RandomizedNet):
            return defended
        return Expectation([defended.draw(ids, index) for index in range(self.draws)])

    def undefended(self) -> Classifier:
        """The net without its defense."""
        net = self.net_itself
        if not isinstance(net, Solving):
            return net
        how: dict[str, Any] = {"gradient": self.gradient}
        for name in ("end", "coupling", "max_steps", "adjoint_tolerance"):
            # A net of the user's own keeps what it asks for where nothing else is said.
            if isinstance(net, ODENet) or getattr(self, name) != getattr(ModelSpec, name):
                how[name] = getattr(self, name)
        if self.method is not None or self.step is not None:
            how |= {"method": self.method or net.method, "step": self.step}
        return net.at(self.tolerance, **how)

    @property
    def gradient_mode(self) -> str:
        """How gradients are taken, as in "adjoint at 1e-06" or "unrolled, rk4 in steps of 0.1"."""
        back = "" if self.adjoint_tolerance is None else f" at {self.adjoint_tolerance:g}"
        steps = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.gradient}{back}" + (f", {self.method}{steps}" if self.method else "")

    @property
    def solves(self) -> bool:
        """Whether odefend solves its ODEs, so that it can be solved otherwise."""
        return isinstance(self.net_itself, Solving)

    @property
    def random(self) -> bool:
        """Whether it is behind a defense that draws."""
        return self.defense is not None and isinstance(self.defense.open()(self.undefended()), RandomizedNet)

    @property
    def passes(self) -> int:
        """Through the net, for an answer."""
        if self.defense is None:
            return 1
        return self.defense.passes * (max(self.draws, 1) if self.random else 1)

    def identity(self) -> dict[str, Any]:
        """Everything that decides its answers, for the digest of a unit: also the weights of what a defense puts before it."""
        whole = {}
        if self.defense is not None:
            whole = {"defended": weights_digest(self.defense.open()(self.undefended())), "own": self.defense.digest}
        return self.record() | whole

    def record(self) -> dict[str, Any]:
        """The columns that say which net, solved how, behind what."""
        net = self.net_itself
        solver = isinstance(net, Solving)
        return {
            "net": self.net,
            "net_digest": _weights(self.net, self.options, self.wrap),
            "training_seed": net.card.seed if net.card else None,
            "precision": "float32",
            "gradient": self.gradient if solver else None,
            "end": self.end if solver else None,
            "method": (self.method or net.method) if isinstance(net, Solving) else None,
            "coupling": self.coupling if solver else None,
            "max_steps": self.max_steps if solver else None,
            "rtol": self.tolerance,
            "atol": self.tolerance,
            "defense": self.defense and self.defense.text,
            "sigma": self.defense and self.defense.sigma,
            "model_spec": canonical(asdict(self)),
        }

    @classmethod
    def recorded(cls, text: str) -> "ModelSpec":
        """The model that a row's `model_spec` tells of."""
        told = json.loads(text)
        return cls(**told | {"defense": told["defense"] and DefenseSpec(**told["defense"])})


def as_trained(net: str, options: str = "{}", wrap: str = "{}") -> ModelSpec:
    """A net, at the tolerance of its training if it is an ODE net of the zoo or a checkpoint."""
    opened = opened_net(net, options, wrap)
    at = opened.settings.tolerance if isinstance(opened, ODENet) else None
    return ModelSpec(net, at if isinstance(at, float) else None, options=options, wrap=wrap)


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


@lru_cache(maxsize=8)
def _images(data: str, split: str, options: str) -> LabelledImages:
    return named_data(data, split, json.loads(options))


@lru_cache(maxsize=8)
def _drawn(data: str, split: str, options: str, sample: int) -> list[int]:
    """The images of a split in a random order."""
    return shuffled(_images(data, split, options).ids, sample)


@dataclass(frozen=True)
class Slice:
    """Images start:stop of one split of a data set with `options` as JSON; `change`: each of them as a tampering leaves it (see
    `data.tamper`).

    `sample` is the seed of a random order that they are taken in, as by `LabelledImages.sample`; None: the order of the data set,
    in which the first need be no sample.
    """

    data: str
    split: str
    start: int
    stop: int
    change: str | None = None
    sample: int | None = None
    options: str = "{}"

    @property
    def digest(self) -> str:
        """Of the images and labels."""
        return _digest(self)

    def open(self) -> LabelledImages:
        """The images."""
        rows: slice | list[int] = slice(self.start, self.stop)
        if self.sample is not None:
            rows = _drawn(self.data, self.split, self.options, self.sample)[rows]
        found = _images(self.data, self.split, self.options)[rows]
        if self.change is None:
            return found
        pixels = (255 * found.images).round().to(torch.uint8)
        return replace(found, pixels=tamper(pixels, found.ids, self.change))


@lru_cache(maxsize=4096)
def _digest(images: Slice) -> str:
    return images.open().digest


def shards(whole: Slice, size: int) -> list[Slice]:
    """The same images, as far as there are any, in slices of `size`."""
    stop = whole.start + len(whole.open())
    return [replace(whole, start=at, stop=min(at + size, stop)) for at in range(whole.start, stop, size)]
