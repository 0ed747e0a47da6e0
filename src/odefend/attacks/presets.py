"""Settings of attacks by name, each with the reason for it, and attacks made from names and settings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from odefend.attacks.apgd import APGD
from odefend.attacks.autoattack_adapter import AutoAttack
from odefend.attacks.availability import Availability
from odefend.attacks.base import Attack
from odefend.attacks.carlini_wagner import CarliniWagner
from odefend.attacks.ddn import DDN
from odefend.attacks.deepfool import DeepFool, SuperDeepFool
from odefend.attacks.fmn import FMN
from odefend.attacks.foolbox_adapter import FoolboxAttack
from odefend.attacks.gradient import BIM, FGSM, PGD
from odefend.attacks.minimum_norm import MinimumNorm
from odefend.attacks.spsa import SPSA
from odefend.attacks.square import Square
from odefend.attacks.worst_case import WorstCase
from odefend.errors import InvalidInput, unknown
from odefend.named import is_own, own_class
from odefend.norms import LINF, NORMS, RMS, Norm

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "bim": BIM,
    "pgd": PGD,
    "apgd": APGD,
    "square": Square,
    "spsa": SPSA,
    "worst-case": WorstCase,
    "minimum-norm": MinimumNorm,
    "carlini-wagner": CarliniWagner,
    "deepfool": DeepFool,
    "superdeepfool": SuperDeepFool,
    "ddn": DDN,
    "fmn": FMN,
    "availability": Availability,
    "foolbox": FoolboxAttack,
    "autoattack": AutoAttack,
}


@dataclass(frozen=True)
class Preset:
    """An attack with settings, and why they are these."""

    attack: Attack
    reason: str


def _carrara(norm: Norm) -> Attack:
    return BIM(0.05, norm, steps=10, step_size=0.05)


def _searched(steps: int, rate: float) -> Attack:
    return CarliniWagner(steps=steps, binary_search_steps=4, learning_rate=rate, initial_constant=1.0)


_MEASURED = (
    ": four rounds from a constant that reaches trained nets' margins (measured on its ODE net: docs/attacks.md)"
)

PRESETS: dict[str, Preset] = {
    "carrara-mnist": Preset(CarliniWagner(), "C&W of Carrara et al. (ICPR-W 2020) on MNIST: Adam .05, 5 rounds of 100"),
    "carrara-cifar10": Preset(CarliniWagner(learning_rate=0.01), "the same on CIFAR-10: Adam .01"),
    "foolbox2": Preset(
        CarliniWagner(steps=1000, binary_search_steps=5, learning_rate=5e-3, initial_constant=1e-2),
        "C&W with the defaults of Foolbox 2",
    ),
    "foolbox3": Preset(
        CarliniWagner(steps=10_000, binary_search_steps=9, learning_rate=1e-2, initial_constant=1e-3),
        "C&W with the defaults of Foolbox 3: the most thorough, and hours of it",
    ),
    "caldelli": Preset(
        CarliniWagner(steps=1000, binary_search_steps=7, learning_rate=1e-2, initial_constant=1e-3),
        "C&W of Caldelli et al. (ICIP 2022)",
    ),
    "fast": Preset(
        CarliniWagner(steps=40, binary_search_steps=4, learning_rate=0.1, initial_constant=1.0),
        "C&W at a third of the published cost, for trials: it misses some images, and ends farther away on MNIST "
        "(docs/attacks.md)",
    ),
    "digits-l2": Preset(
        _searched(100, 0.1), "C&W for digits at the cost of the published search, and nearer" + _MEASURED
    ),
    "mnist-l2": Preset(_searched(100, 0.1), "the same for MNIST" + _MEASURED),
    "cifar10-l2": Preset(
        _searched(60, 0.05), "C&W for CIFAR-10 at half the cost of 100 x 5 steps, and nearer" + _MEASURED
    ),
    "thorough": Preset(
        CarliniWagner(steps=400, binary_search_steps=7, learning_rate=0.02, initial_constant=0.1),
        "C&W at five times the cost of the published search: what the others were measured by",
    ),
    "wifs-linf": Preset(
        _carrara(LINF),
        "the basic iterative attack of Carrara et al. (WIFS 2019) on MNIST, ten steps of .05, radius .05: see --set epsilon",
    ),
    "wifs-l2": Preset(_carrara(RMS), "the same in what that paper calls L2, a root of a mean"),
    "mnist-linf": Preset(
        PGD(0.3, steps=40, step_size=0.01, early_stop=False),
        "Madry et al. (arXiv 1706.06083) on MNIST: radius .3 in steps of .01",
    ),
    "cifar10-linf": Preset(
        PGD(8 / 255, steps=20, step_size=2 / 255, early_stop=False),
        "Madry et al. (arXiv 1706.06083) on CIFAR-10: radius 8/255 in steps of 2/255",
    ),
}
"""Attacks by name."""


def named_attack(name: str, settings: Mapping[str, Any] | None = None) -> Attack:
    """An attack by its name or that of a preset, with some of its settings replaced; norms by their names. `file.py:Class` and
    `package.module:Class` name attacks of a user's own.

    Raises UnknownName for an unknown attack, setting or norm, with the nearest, and InvalidInput for a missing setting or a
    value of the wrong type or out of range.
    """
    kind: type[Any]
    if is_own(name):
        kind = own_class(name, Attack)
    elif name in ATTACKS or name in PRESETS:
        kind = ATTACKS[name] if name in ATTACKS else type(PRESETS[name].attack)
    else:
        raise unknown("attack", name, [*ATTACKS, *PRESETS])
    wanted = {key: _value(kind, key, value) for key, value in (settings or {}).items()}
    if name in PRESETS:
        return replace(PRESETS[name].attack, **wanted)
    try:
        return kind(**wanted)
    except TypeError as error:
        missing = str(error).split("argument")[-1].lstrip("s: ")
        raise InvalidInput(f"attack: expected settings for {name}, missing {missing}.") from error


def _quotient(value: Any) -> Any:
    """A quotient of two numbers as people write radii, such as "8/255", as a number; anything else as it is."""
    found = re.fullmatch(r"\s*(\d+\.?\d*)\s*/\s*(\d+)\s*", value) if isinstance(value, str) else None
    return float(found[1]) / float(found[2]) if found and float(found[2]) else value


Radius = Annotated[float, BeforeValidator(_quotient), Field(ge=0)]
"""A radius in a file: a number, or a quotient such as "8/255"."""


def _value(kind: type[Attack], key: str, value: Any) -> Any:
    known: dict[str, Any] = {field.name: field.type for field in fields(kind)}
    if key not in known:
        raise unknown(f"setting of {kind.__name__}", key, known)
    if known[key] is Norm:
        if value not in NORMS:
            raise unknown("norm", value, NORMS)
        return NORMS[value]
    try:
        return TypeAdapter(known[key]).validate_python(_quotient(value))
    except ValidationError as error:
        raise InvalidInput(f"{key}: {error.errors()[0]['msg'].lower()}; got {value!r}.") from error
