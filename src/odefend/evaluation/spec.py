"""An evaluation as data: what is attacked, how, and under what it is judged. Written as a TOML file, checked here."""

import json
import tomllib
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from odefend.attacks import Attack, named_attack
from odefend.data import DATASETS
from odefend.defenses import LogUniform
from odefend.errors import InvalidInput, unknown

Count = Annotated[int, Field(ge=1)]
Tolerance = Annotated[float, Field(gt=0)]
Gradient = Literal["unrolled", "exact", "torchdiffeq", "checkpoint", "adjoint"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Part):
    """Whose gradients an attack follows: another net, or the attacked one solved or differentiated otherwise."""

    net: str | None = Field(default=None, description="default: the net under attack")
    tolerance: Tolerance | None = Field(default=None, description="default: that under attack")
    gradient: Gradient = "unrolled"


class Trial(_Part):
    """One attack, against the net and perhaps the control, at some tolerances and radii."""

    name: str = Field(min_length=1, description="what tables call it")
    attack: str = Field(description="an attack or a preset: see `odefend attacks`")
    settings: dict[str, Any] = Field(default={}, description="of the attack, such as steps")
    epsilon: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(), description="radii, for an attack in a ball; more than one make a curve"
    )
    at: tuple[Tolerance, ...] = Field(default=(), description="tolerances attacked; default: the evaluation's")
    gradient: Gradient = "unrolled"
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
    clean: Count = Field(default=200, description="test images judged unattacked; at least those that are attacked")
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
    noise: Noise | Literal[False] = Field(default=Noise(), description="false: none")
    vote: Vote | None = None
    shard: Count = Field(default=50, description="images per piece of work")
    seed: int = 0

    def attacked_at(self, trial: Trial) -> tuple[float, ...]:
        """The tolerances that a trial attacks."""
        return trial.at or (self.tolerance,)

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
    _check_data(where, evaluation)
    names = [trial.name for trial in evaluation.trials]
    for trial in evaluation.trials:
        if names.count(trial.name) > 1:
            raise InvalidInput(f"{where}: expected trials of different names, got {trial.name!r} twice.")
        _check_trial(f"{where}: {trial.name}", evaluation, trial)
    _check_whole(where, evaluation)
    return evaluation


def _check_data(where: str, evaluation: Evaluation) -> None:
    if evaluation.data not in DATASETS:
        raise unknown("data set", evaluation.data, DATASETS)
    asked = [
        name
        for name, parameter in signature(DATASETS[evaluation.data]).parameters.items()
        if name != "split" and parameter.default is parameter.empty
    ]
    if asked:
        raise InvalidInput(f"{where}: data: expected a data set without options, got {evaluation.data}.")


def _check_trial(where: str, evaluation: Evaluation, trial: Trial) -> None:
    """Raise where a trial asks for what it cannot have."""
    names = [one.name for one in evaluation.trials]
    if trial.beside is not None and trial.beside not in names:
        raise unknown(f"trial that {trial.name!r} stands beside,", trial.beside, names)
    if trial.control and evaluation.control is None:
        raise InvalidInput(f"{where}: expected a control to attack. Name one by control = ...")
    if "target" in trial.settings:
        raise InvalidInput(
            f"{where}: target: expected none, since some images are of that class. Use `odefend attack`."
        )
    ball = trial.made()[0].budget is not None
    if ball and not trial.epsilon:
        raise InvalidInput(f"{where}: expected radii for an attack in a ball, as in epsilon = [0.1].")
    if trial.judged == "everywhere":
        if ball:
            raise InvalidInput(f"{where}: expected an attack of smallest norm to judge everywhere, got one in a ball.")
        if not set(evaluation.attacked_at(trial)) <= set(evaluation.tolerances):
            raise InvalidInput(
                f"{where}: at: expected tolerances that are judged at, got {list(evaluation.attacked_at(trial))}."
            )
    if trial.judged == "matrix" and (len(trial.epsilon) != 1 or len(trial.at) < 2 or trial.control):
        raise InvalidInput(
            f"{where}: expected one radius, two tolerances attacked or more, and no control for a matrix; got epsilon = "
            f"{list(trial.epsilon)}, at = {list(trial.at)}, control = {trial.control}."
        )


def _check_whole(where: str, evaluation: Evaluation) -> None:
    """Raise where parts of an evaluation do not fit together."""
    about, vote = evaluation, evaluation.vote
    if 1.0 not in about.scales:
        raise InvalidInput(f"{where}: scales: expected 1.0 among them, got {list(about.scales)}.")
    if about.noise and about.tolerance not in about.tolerances:
        raise InvalidInput(f"{where}: tolerances: expected {about.tolerance:g} among them, where noise is measured.")
    matrices = [trial for trial in about.trials if trial.judged == "matrix"]
    if len(matrices) > 1:
        raise InvalidInput(f"{where}: expected one trial judged as a matrix, got {len(matrices)}. Use a file for each.")
    if matrices and about.epsilon not in (None, matrices[0].epsilon[0]):
        raise InvalidInput(
            f"{where}: epsilon: expected the radius of {matrices[0].name}, {matrices[0].epsilon[0]:g}, got {about.epsilon}."
        )
    if about.epsilon is not None and not any(about.epsilon in trial.epsilon for trial in about.trials):
        raise InvalidInput(f"{where}: epsilon: expected a radius of some trial, got {about.epsilon:g}.")
    if vote is None:
        return
    searched = [trial for trial in about.trials if trial.judged == "everywhere"]
    if len(searched) > 1 or any(about.attacked_at(trial) != (about.tolerance,) for trial in searched):
        raise InvalidInput(
            f"{where}: vote: expected one trial judged everywhere, attacked at {about.tolerance:g} alone. Use a file for each."
        )
    inside = [t for t in about.tolerances if vote.low <= t <= vote.high and t != about.tolerance]
    if not about.noise or not inside:
        raise InvalidInput(
            f"{where}: vote: expected noise beside it and tolerances in [{vote.low:g}, {vote.high:g}] to match its dose."
        )
    if 1.0 not in vote.scales or not set(vote.scales) <= set(about.scales):
        raise InvalidInput(
            f"{where}: vote: scales: expected 1.0 and others of {list(about.scales)}, got {list(vote.scales)}."
        )


def _keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where a wrong one stood."""
    part = {"trials": Trial, "noise": Noise, "vote": Vote}.get(str(loc[0]), Evaluation) if len(loc) > 1 else Evaluation
    return list((Source if "source" in loc[:-1] else part).model_fields)
