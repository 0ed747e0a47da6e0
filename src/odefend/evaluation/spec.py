"""An evaluation as data: what is attacked, how, and under what it is judged. Written as a TOML file, checked here."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from odefend.attacks import Attack, named_attack
from odefend.data import DATASETS
from odefend.defenses import LogUniform
from odefend.errors import InvalidInput, unknown

Count = Annotated[int, Field(ge=1)]
Tolerance = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Part):
    """Whose gradients an attack follows: another net, or the attacked one solved or differentiated otherwise."""

    net: str | None = Field(default=None, description="default: the net under attack")
    tolerance: Tolerance | None = Field(default=None, description="default: that under attack")
    gradient: str = "unrolled"


class Trial(_Part):
    """One attack, against the net and perhaps the control, at some tolerances and radii."""

    name: str = Field(min_length=1, description="what tables call it")
    attack: str = Field(description="an attack or a preset: see `odefend attacks`")
    settings: dict[str, Any] = Field(default={}, description="of the attack, such as steps")
    epsilon: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(), description="radii, for an attack in a ball; more than one make a curve"
    )
    at: tuple[Tolerance, ...] = Field(default=(), description="tolerances attacked; default: the evaluation's")
    gradient: str = "unrolled"
    source: Source | None = None
    images: Count | None = Field(default=None, description="the first so many only")
    control: bool = Field(default=False, description="also against the control")
    judged: Literal["where attacked", "everywhere", "matrix"] = Field(
        default="where attacked",
        description="by the attack itself only; at all tolerances, pushed on and beside noise; or at each tolerance attacked",
    )
    traced: bool = Field(
        default=False, description="follow the states of its images through the ODE, beside their originals"
    )
    beside: str | None = Field(
        default=None, description="another attack: if this one breaks images which that one does not, that one was weak"
    )

    def made(self) -> list[Attack]:
        """The attack at each radius."""
        if not self.epsilon:
            return [named_attack(self.attack, self.settings)]
        return [named_attack(self.attack, self.settings | {"epsilon": epsilon}) for epsilon in self.epsilon]


class Noise(_Part):
    """Gaussian input noise that changes clean images as much as each change of tolerance does."""

    draws: Count = 5
    grid: tuple[Annotated[float, Field(gt=0)], ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


class Vote(_Part):
    """A vote over tolerances drawn log-uniformly, and beside it one under noise of the same dose."""

    votes: Annotated[int, Field(ge=5)] = 20
    low: Tolerance = 1e-5
    high: Tolerance = 1e-1
    scales: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 1.05, 1.1, 1.25)

    @property
    def range(self) -> LogUniform:
        """What tolerances are drawn from."""
        return LogUniform(self.low, self.high)


class Evaluation(_Part):
    """What `odefend evaluate` runs."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="of the report and of the rows' labels")
    title: str = Field(default="", description="of the report")
    net: str = Field(description="the net in question: a name of the zoo or a .safetensors file")
    control: str | None = Field(
        default=None, description="a net without a solver: what it shows too is not owed to the ODE"
    )
    data: str = Field(description="one of odefend.DATASETS")
    images: Count = Field(description="test images attacked")
    clean: Count = Field(default=200, description="test images judged unattacked")
    calibration: Count = Field(default=100, description="validation images that noise and thresholds are set by")
    tolerance: Tolerance = Field(default=1e-3, description="attacked at, unless a trial says otherwise")
    tolerances: tuple[Tolerance, ...] = Field(
        default=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), description="judged at"
    )
    scales: tuple[Annotated[float, Field(ge=1)], ...] = Field(
        default=(1.0, 1.02, 1.05, 1.1, 1.25, 1.5), description="adversarial perturbations are multiplied by"
    )
    epsilon: float | None = Field(default=None, description="the radius that sentences are about")
    trials: tuple[Trial, ...] = Field(min_length=1)
    noise: Noise | None = Noise()
    vote: Vote | None = None
    shard: Count = Field(default=50, description="images per piece of work")
    seed: int = 0

    def trial(self, name: str) -> Trial:
        """A trial by its name."""
        return next(one for one in self.trials if one.name == name)


def read_evaluation(file: Path | str, overrides: dict[str, Any] | None = None) -> Evaluation:
    """An evaluation from a TOML file or its text, or from the JSON file that `odefend evaluate` keeps of it, with some keys
    replaced.

    Raises UnknownName for an unknown key, attack, setting, data set or trial (with the nearest) and InvalidInput for a value
    out of range or a file that is not TOML.
    """
    try:
        text = file if isinstance(file, str) else file.read_text(encoding="utf-8")
        kept = isinstance(file, Path) and file.suffix == ".json"
        values = json.loads(text)["settings"]["evaluation"] if kept else tomllib.loads(text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{_shown(file)}: expected a TOML file with an evaluation: {error}") from error
    return _checked(_shown(file), values | (overrides or {}))


def _shown(file: Path | str) -> str:
    return "evaluation" if isinstance(file, str) else str(file)


def _checked(where: str, values: dict[str, Any]) -> Evaluation:
    try:
        evaluation = Evaluation(**values)
    except ValidationError as error:
        # A key that is not known says more than one that is missing.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        at = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise unknown(f"key {at} of {where},", str(first["loc"][-1]), _keys(first["loc"])) from error
        if first["type"] == "missing":
            raise InvalidInput(f"{where}: {at}: expected this key, found none.") from error
        raise InvalidInput(f"{where}: {at}: {first['msg'].lower()}; got {first['input']!r}.") from error
    if evaluation.data not in DATASETS:
        raise unknown("data set", evaluation.data, DATASETS)
    names = [trial.name for trial in evaluation.trials]
    for trial in evaluation.trials:
        if names.count(trial.name) > 1:
            raise InvalidInput(f"{where}: expected trials of different names, got {trial.name!r} twice.")
        if trial.beside is not None and trial.beside not in names:
            raise unknown(f"trial that {trial.name!r} stands beside,", trial.beside, names)
        if trial.control and evaluation.control is None:
            raise InvalidInput(f"{where}: {trial.name}: expected a control to attack. Name one by control = ...")
        for attack in trial.made():
            if trial.judged == "everywhere" and attack.budget is not None:
                raise InvalidInput(
                    f"{where}: {trial.name}: expected an attack of smallest norm to judge everywhere, got one in a ball."
                )
    if evaluation.noise and evaluation.tolerance not in evaluation.tolerances:
        raise InvalidInput(
            f"{where}: tolerances: expected {evaluation.tolerance:g} among them, where noise is measured."
        )
    return evaluation


def _keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where a wrong one stood."""
    part = {"trials": Trial, "noise": Noise, "vote": Vote}.get(str(loc[0]), Evaluation) if len(loc) > 1 else Evaluation
    return list((Source if "source" in loc[:-1] else part).model_fields)
