"""Reading an experiment from its TOML file, and refusing what is not one or does not fit together."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from odefend.errors import InvalidInput, unknown
from odefend.experiments.expand import several
from odefend.experiments.parts import Experiment, Part
from odefend.files import parse_toml, read_text


def read_experiment(file: Path | str, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """An experiment from a TOML file or its text, or from the JSON file that a run leaves beside its ledger, with some keys
    replaced.

    Raises UnknownName for an unknown key or name (with the nearest) and InvalidInput for a value out of range or a file that is not
    TOML.
    """
    where = "experiment" if isinstance(file, str) else str(file)
    try:
        text = file if isinstance(file, str) else read_text(file)
        stored = isinstance(file, Path) and file.suffix == ".json"
        values = json.loads(text)["experiment"] if stored else parse_toml(text)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{where}: expected a TOML file with an experiment: {error}") from error
    return checked(values | dict(overrides or {}), where)


def checked(values: Mapping[str, Any], where: str = "experiment") -> Experiment:
    """The experiment of these values. Raises as `read_experiment` does."""
    try:
        experiment = Experiment(**values)
    except ValidationError as error:
        raise _told(where, error) from error
    check_names(experiment, where)
    return experiment


def _told(where: str, error: ValidationError) -> Exception:
    # A key that is not known says more than one that is missing, and that more than what a union's members say.
    rank = {"extra_forbidden": 0, "missing": 1}
    first = min(error.errors(), key=lambda one: rank.get(one["type"], 2))
    at = ".".join(
        str(part) for part in first["loc"] if not str(part).startswith(("function-", "tuple[", "constrained"))
    )
    if first["type"] == "extra_forbidden":
        return unknown(f"key {at} of {where},", str(first["loc"][-1]), _keys(Experiment, first["loc"][:-1]))
    if first["type"] == "missing":
        return InvalidInput(f"{where}: {at}: expected this key, found none.")
    return InvalidInput(f"{where}: {at}: {first['msg'].lower()}; got {first['input']!r}.")


def _keys(part: type[Part], place: Iterable[int | str]) -> list[str]:
    """The keys that are known at a place."""
    for name in place:
        if isinstance(name, str) and name in part.model_fields:
            inner = _part(part.model_fields[name].annotation)
            part = inner or part
    return list(part.model_fields)


def _part(kind: Any) -> type[Part] | None:
    """The part that a field's type speaks of."""
    if isinstance(kind, type) and issubclass(kind, Part):
        return kind
    return next((found for one in get_args(kind) if (found := _part(one))), None)


def check_names(experiment: Experiment, where: str = "experiment") -> None:
    """Raise UnknownName where a part names another that is not there."""

    def named(what: str, names: Any, known: Iterable[str], at: str) -> None:
        for name in several(names):
            if name not in known:
                raise unknown(f"{what} in {at} of {where},", name, known)

    for name, attack in experiment.attacks.items():
        at = f"attacks.{name}"
        named("model", attack.on, experiment.models, at)
        named("data", attack.data, experiment.data, at)
        named("detector", attack.knowing, experiment.detectors, at)
        source = attack.source if isinstance(attack.source, str) else attack.source and attack.source.model
        named("model", source, experiment.models, at)
        for detector in several(attack.knowing):
            beside = experiment.detectors[detector]
            named("data", beside.calibration, experiment.data, f"detectors.{detector}")
            named(f"model of detector {detector}", beside.model, several(attack.on), at)
    for name, model in experiment.models.items():
        used = any(name in several(one.on) and one.data is None for one in experiment.attacks.values())
        named("data", model.data if used else (), experiment.data, f"models.{name}")
    for name, detector in experiment.detectors.items():
        at = f"detectors.{name}"
        named("model", detector.model, experiment.models, at)
        named("data", detector.learn, experiment.data, at)
        named("attack", detector.attacked, experiment.attacks, at)
    for name, measure in experiment.measures.items():
        at = f"measures.{name}"
        named("model", measure.models, experiment.models, at)
        named("model", measure.made_on, experiment.models, at)
        named("detector", measure.detectors, experiment.detectors, at)
        named("attack", measure.images, {*experiment.attacks, "clean"}, at)
        named("data", measure.data if "clean" in several(measure.images) else (), experiment.data, at)
    for name, derived in experiment.derived.items():
        named("measure", derived.of, experiment.measures, f"derived.{name}")


def limited(experiment: Experiment, images: int) -> Experiment:
    """The experiment on at most so many images of each kind of data, and of each attack."""

    def smaller(part: Any) -> Any:
        return part.model_copy(update={"count": min(part.count or images, images)})

    return experiment.model_copy(
        update={
            "data": {name: smaller(part) for name, part in experiment.data.items()},
            "attacks": {
                name: smaller(part) if part.count is not None else part for name, part in experiment.attacks.items()
            },
        }
    )
