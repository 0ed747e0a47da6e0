"""Reading an evaluation from its TOML file, and refusing what is not one or does not fit together."""

import json
from inspect import signature
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from odefend.data import DATASETS, check_data
from odefend.errors import InvalidInput, unknown
from odefend.evaluation.spec import LEAST_CALIBRATION, Evaluation, Noise, Published, Source, Trial, Vote
from odefend.files import parse_toml, read_text
from odefend.models import SolverSettings


def read_evaluation(file: Path | str, overrides: dict[str, Any] | None = None) -> Evaluation:
    """An evaluation from a TOML file or its text, or from the JSON file that `odefend evaluate` keeps of it, with some keys
    replaced.

    Raises UnknownName for an unknown key, attack, setting, data set or trial (with the nearest) and InvalidInput for a value
    out of range or a file that is not TOML.
    """
    if isinstance(file, str) and file.endswith((".toml", ".json")):
        raise InvalidInput(f"{file}: expected the text of an evaluation or a pathlib.Path, got a name in a string.")
    try:
        text = file if isinstance(file, str) else read_text(file)
        kept = isinstance(file, Path) and file.suffix == ".json"
        values = json.loads(text)["settings"]["evaluation"] if kept else parse_toml(text)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
    for published in evaluation.published:
        _check_published(f"{where}: published: {published.source}", evaluation, published)
    _check_whole(where, evaluation)
    return evaluation


def _check_data(where: str, evaluation: Evaluation) -> None:
    if evaluation.data in DATASETS and any(
        name != "split" and one.default is one.empty
        for name, one in signature(DATASETS[evaluation.data]).parameters.items()
    ):
        raise InvalidInput(f"{where}: data: expected a data set without options, got {evaluation.data}.")
    check_data(evaluation.data, {})


def _check_trial(where: str, evaluation: Evaluation, trial: Trial) -> None:
    """Raise where a trial asks for what it cannot have."""
    names = [one.name for one in evaluation.trials]
    if trial.beside is not None and trial.beside not in names:
        raise unknown(f"trial that {trial.name!r} stands beside,", trial.beside, names)
    if trial.beside is not None:
        own = evaluation.trial(trial.beside)
        at, there = evaluation.attacked_at(trial), evaluation.attacked_at(own)
        if not set(trial.epsilon) <= set(own.epsilon) or not set(at) <= set(there):
            raise InvalidInput(
                f"{where}: beside: expected radii and tolerances that {own.name} has as well, {list(own.epsilon)} and "
                f"{list(there)}, got {list(trial.epsilon)} and {list(at)}."
            )
    if trial.beside == trial.name:
        raise InvalidInput(f"{where}: beside: expected another trial, got this one.")
    if trial.source is not None and trial.gradient != "unrolled":
        raise InvalidInput(
            f"{where}: gradient: expected none beside a source, whose gradients are followed. Set source = {{ gradient = ... }}."
        )
    if trial.source is not None:
        _check_source(f"{where}: source", trial.source)
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


def _check_source(where: str, source: Source) -> None:
    """Raise where no net can be solved and differentiated like this."""
    try:
        SolverSettings(
            method=source.method or SolverSettings.method,
            step=source.step,
            gradient=source.gradient,
            adjoint_tolerance=source.adjoint_tolerance,
        )
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from error
    if source.adjoint_tolerance is not None and source.gradient != "adjoint":
        raise InvalidInput(
            f'{where}: adjoint_tolerance: expected gradient = "adjoint" with it, got {source.gradient!r}.'
        )


def _check_published(where: str, evaluation: Evaluation, published: Published) -> None:
    """Raise where there is nothing that printed numbers could stand beside."""
    names = [trial.name for trial in evaluation.trials]
    if published.trial not in names:
        raise unknown(f"trial of {where}", published.trial, names)
    trial = evaluation.trial(published.trial)
    if published.control and not trial.control:
        raise InvalidInput(f"{where}: expected a trial on the control, got {trial.name}, which is not.")
    if published.epsilon not in (trial.epsilon or (None,)):
        raise InvalidInput(f"{where}: epsilon: expected one of {list(trial.epsilon)}, got {published.epsilon}.")
    at = () if published.control else evaluation.attacked_at(trial)
    if not set(published.at) <= set(at) or (not published.at and len(at) > 1):
        raise InvalidInput(
            f"{where}: at: expected the tolerance of each number, some of {list(at)}, got {list(published.at)}."
        )
    expected = 1 if published.control else len(published.at or at)
    if len(published.success) != expected or len(published.mse) not in (0, expected):
        raise InvalidInput(
            f"{where}: expected {expected} numbers, got {len(published.success)} and {len(published.mse)}."
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
    if about.calibration < LEAST_CALIBRATION:
        raise InvalidInput(
            f"{where}: vote: expected at least {LEAST_CALIBRATION} calibration images, which 5 % false alarms need, got "
            f"{about.calibration}."
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
    parts = {"trials": Trial, "noise": Noise, "vote": Vote, "published": Published}
    part = parts.get(str(loc[0]), Evaluation) if len(loc) > 1 else Evaluation
    return list((Source if "source" in loc[:-1] else part).model_fields)
