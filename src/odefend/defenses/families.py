"""The defenses by name."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from odefend.defenses.draws import Averaged, MajorityVote
from odefend.defenses.endtime import FixedEndTime, RandomEndTime
from odefend.defenses.noise import InputNoise
from odefend.defenses.purification import Purification
from odefend.defenses.smoothing import Smoothing
from odefend.defenses.tolerance import FixedTolerance, RandomTolerance
from odefend.defenses.transform import BitDepth, InputTransform
from odefend.errors import InvalidInput, unknown
from odefend.models import Classifier
from odefend.named import is_own, own_class

Defense = Callable[[Classifier], Classifier]

DEFENSES: dict[str, type[Any]] = {
    "tolerance": FixedTolerance,
    "random-tolerance": RandomTolerance,
    "end-time": FixedEndTime,
    "random-end-time": RandomEndTime,
    "averaged": Averaged,
    "majority-vote": MajorityVote,
    "input-noise": InputNoise,
    "input-transform": InputTransform,
    "bit-depth": BitDepth,
    "purification": Purification,
    "smoothing": Smoothing,
}


def named_defense(name: str, settings: Mapping[str, Any] | None = None) -> Defense:
    """A defense by its name and settings; one that takes draws of another (averaged, majority-vote) is told that by its name
    beside its settings, as in {"defense": {"name": "input-noise", "sigma": 0.1}, "draws": 5}.

    Raises UnknownName for an unknown defense or setting, with the nearest, and InvalidInput for a missing setting or a value of
    the wrong type or out of range.
    """
    kind = defense_class(name)
    types = {field.name: field.type for field in fields(kind)}
    wanted = {key: _value(name, types, key, value) for key, value in (settings or {}).items()}
    try:
        return kind(**wanted)
    except TypeError as error:
        missing = str(error).split("argument")[-1].lstrip("s: ")
        raise InvalidInput(f"defense: expected settings for {name}, missing {missing}.") from error


def defense_class(name: str) -> type[Any]:
    """The class of a defense by its name, or of a user's own by `file.py:Class`: a dataclass of settings that is called with a
    classifier. Raises UnknownName for none of these."""
    if is_own(name):
        kind = own_class(name)
        if not is_dataclass(kind):
            raise InvalidInput(
                f"{name}: expected a dataclass of settings that is called with a classifier, got another class."
            )
        return kind
    if name not in DEFENSES:
        raise unknown("defense", name, DEFENSES)
    return DEFENSES[name]


def _value(name: str, types: Mapping[str, Any], key: str, value: Any) -> Any:
    if key not in types:
        raise unknown(f"setting of {name}", key, types)
    if key == "defense":
        if not isinstance(value, Mapping) or "name" not in value:
            raise InvalidInput(f"defense: expected its name and settings, got {value!r}.")
        return named_defense(value["name"], {one: value[one] for one in value if one != "name"})
    if is_dataclass(types[key]) and isinstance(value, Mapping):
        # Pydantic would take what it knows of them, and say nothing.
        known = [field.name for field in fields(types[key])]
        if wrong := [one for one in value if one not in known]:
            raise unknown(f"part of {key}", wrong[0], known)
    try:
        return TypeAdapter(types[key]).validate_python(value)
    except ValidationError as error:
        raise InvalidInput(f"{key}: {error.errors()[0]['msg'].lower()}; got {value!r}.") from error
