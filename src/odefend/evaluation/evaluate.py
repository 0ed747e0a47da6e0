"""Running an evaluation: what is missing in its ledger is done, in an order that lets a stopped run go on."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from pydantic import ValidationError

from odefend.errors import InvalidInput, OutputError
from odefend.evaluation import detection
from odefend.evaluation.craft import Craft
from odefend.evaluation.ledger import Ledger
from odefend.evaluation.plan import Plan, calibrated, matched_noise, vote_noise, work
from odefend.evaluation.robustness import attacked, lost
from odefend.evaluation.runner import Runner
from odefend.evaluation.spec import Evaluation
from odefend.evaluation.unit import Unit
from odefend.evaluation.views import View
from odefend.files import make_folder, read_text, write_json
from odefend.intervals import rate
from odefend.models import ODENet, load, weights_digest
from odefend.progress import Progress, Silent
from odefend.tensors import Images
from odefend.version import code_version

PILOT = 16
"""Images on which the cost of a gradient is measured."""

TOLD_EVERY = 15.0
"""Seconds between looks into the ledger for what the attacks have reached so far."""


@dataclass(frozen=True)
class Estimate:
    """What an evaluation will take: units and seconds on one thread by experiment, and what is done already."""

    units: dict[str, int]
    seconds: dict[str, float]
    done: int

    @property
    def total(self) -> float:
        """Seconds on one thread."""
        return sum(self.seconds.values())


def evaluate(
    evaluation: Evaluation, folder: Path, progress: Progress, workers: int | None = None, ray: str | None = None
) -> Ledger:
    """Do whatever of the evaluation is not yet in the ledger at `folder`/ledger, on processes or on a Ray cluster: see
    `Runner`; returns the ledger.

    Several evaluations may share a folder, and then what they craft and judge alike is done once. Raises OutputError where
    the folder holds another evaluation of this name, or of other nets or code: rows of two must not be mixed.
    """
    settings = _settings(evaluation)
    make_folder(folder)
    with Runner(folder / "ledger", workers, ray) as runner:
        if manifest(folder, evaluation.name).exists():
            _check_same(folder, read_manifest(folder, evaluation.name)["settings"], settings)
        write_json(manifest(folder, evaluation.name), {"settings": settings, "finished": False})
        plan = Plan(evaluation)
        cost = pilot(plan, progress)
        first: list[Unit] = [*plan.calibration(), *plan.crafts(), *plan.traces()]
        # Which noise matches which tolerance is known after calibration; how much of it there is to judge, before.
        placeholder = plan.judgements(_guess(plan), 0.1)
        seconds = [sum(cost.of(unit) for unit in units) for units in (first, placeholder)]
        progress.stage(evaluation.name, sum(seconds))
        notes = _SoFar(runner.ledger, evaluation)
        runner.run(
            [(unit, cost.of(unit)) for unit in first],
            lambda done: progress.advance(done, notes.text()),
            evaluation.name,
        )
        doses = calibrated(runner.ledger.read("judged", evaluation.name), evaluation)
        second = plan.judgements(matched_noise(doses, evaluation), vote_noise(doses, evaluation))
        runner.run(
            [(unit, cost.of(unit)) for unit in second],
            lambda done: progress.advance(seconds[0] + done, notes.text()),
            evaluation.name,
        )
        if evaluation.vote:
            detection.score(runner.ledger, evaluation.tolerance, evaluation.name, evaluation.vote.votes)
        write_json(manifest(folder, evaluation.name), {"settings": settings, "finished": True})
    return runner.ledger


def _check_same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise where a folder holds another evaluation of the name; its title and numbers in print may change."""

    def decisive(settings: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings["evaluation"].items() if key not in ("title", "published")}

    name = new["evaluation"]["name"]
    if old["version"] != new["version"]:
        raise OutputError(
            f"{folder}: holds an evaluation {name!r} by odefend {old['version']}, and this is {new['version']}. Install that one "
            "again, or choose another folder: rows of two codes must not be mixed."
        )
    if decisive(old) != decisive(new) or old["nets"] != new["nets"]:
        what = [key for key, value in decisive(new).items() if decisive(old).get(key) != value] or ["weights"]
        raise OutputError(
            f"{folder}: holds an evaluation {name!r} of other settings ({', '.join(what)}). Choose another name or folder."
        )


def estimate(evaluation: Evaluation, folder: Path) -> Estimate:
    """What `evaluate` would take now, by a few gradients and answers measured on this machine on one thread."""
    plan, ledger = Plan(evaluation), Ledger(folder / "ledger")
    cost = pilot(plan, Silent())
    units, seconds, done = dict[str, int](), dict[str, float](), 0
    doses = calibrated(ledger.read("judged", evaluation.name), evaluation)
    noise = matched_noise(doses, evaluation)
    second = plan.judgements(noise, vote_noise(doses, evaluation)) if noise else plan.judgements(_guess(plan), 0.1)
    for unit in [*plan.calibration(), *plan.crafts(), *plan.traces(), *second]:
        if unit.done(ledger):
            done += 1
            continue
        name = unit.experiment + (f": {unit.trial}" if unit.trial else "")
        units[name] = units.get(name, 0) + 1
        seconds[name] = seconds.get(name, 0.0) + cost.of(unit)
    return Estimate(units, seconds, done)


def _guess(plan: Plan) -> dict[float, float]:
    """As many different noises as there will be."""
    evaluation = plan.evaluation
    if not plan.calibration():
        return {}
    others = [tolerance for tolerance in evaluation.tolerances if tolerance != evaluation.tolerance]
    return {tolerance: 0.1 + 0.001 * index for index, tolerance in enumerate(others)}


@dataclass(frozen=True)
class _Cost:
    """Seconds that a gradient for one image takes on one thread, by how the net is solved and differentiated."""

    seconds: dict[View, float]

    def of(self, unit: Unit) -> float:
        """Seconds of a unit, with a little for opening nets and writing rows."""
        view = unit.source or unit.view if isinstance(unit, Craft) else unit.view
        usual = next(seconds for one, seconds in self.seconds.items() if one.net == unit.view.net)
        return 0.05 + work(unit) * self.seconds.get(view, usual)


def pilot(plan: Plan, progress: Progress) -> _Cost:
    """Measure the gradient of each net, as attacks follow it and first as it is evaluated, on a few images."""
    evaluation, threads = plan.evaluation, torch.get_num_threads()
    images = plan.slices(PILOT)[0].open().images[:PILOT]
    nets = [plan.view(net) for net in (evaluation.net, evaluation.control) if net]
    views = list(dict.fromkeys([*nets, *(unit.source or unit.view for unit in plan.crafts())]))
    progress.stage(f"{evaluation.name}: timing", len(views))
    found = {}
    try:
        torch.set_num_threads(1)
        _gradient(views[0], images)  # what happens once only is no part of it
        for number, view in enumerate(views, 1):
            started = time.perf_counter()
            _gradient(view, images)
            found[view] = (time.perf_counter() - started) / len(images)
            progress.advance(number)
    finally:
        torch.set_num_threads(threads)
    return _Cost(found)


def _gradient(view: View, images: Images) -> None:
    asked = images.clone().requires_grad_(True)
    torch.autograd.grad(view.open()(asked).square().sum(), asked)


class _SoFar:
    """How many images still stand, from the rows that are there, looked up now and then."""

    def __init__(self, ledger: Ledger, evaluation: Evaluation) -> None:
        self.ledger, self.evaluation, self.last, self.said = ledger, evaluation, time.monotonic(), ""
        inside = [trial for trial in evaluation.trials if evaluation.epsilon in trial.epsilon]
        self.norm = inside[0].made()[0].norm_name if inside else ""

    def text(self) -> str:
        """As "so far 12 of 50 images withstand every attack of radius 0.1"."""
        if self.evaluation.epsilon is not None and time.monotonic() - self.last > TOLD_EVERY:
            self.last = time.monotonic()
            rows = self.ledger.read("crafted", self.evaluation.name, ("history", "settings"))
            rows = attacked(
                rows.filter((pl.col("net") == self.evaluation.net) & (pl.col("epsilon") == self.evaluation.epsilon))
            )
            rows = rows.filter(pl.col("norm") == self.norm)
            each = rows.filter(pl.col("rtol").is_null() | (pl.col("rtol") == self.evaluation.tolerance))
            each = each.group_by("image").agg(lost().any().alias("lost"))
            if each.height:
                standing = rate(int((~each["lost"]).sum()), each.height).percent
                self.said = f"so far {standing} withstand radius {self.evaluation.epsilon:g}"
        return self.said


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    if evaluation.control and isinstance(load(evaluation.control), ODENet):
        raise InvalidInput(f"control: expected a net without a solver, got {evaluation.control}, an ODE net.")
    if not isinstance(load(evaluation.net), ODENet) and any(one.judged == "matrix" for one in evaluation.trials):
        raise InvalidInput(f"net: expected an ODE net for a matrix of tolerances, got {evaluation.net}.")
    sources = [trial.source.net for trial in evaluation.trials if trial.source]
    for trial in evaluation.trials:
        source = trial.source
        if source and not isinstance(load(source.net or evaluation.net), ODENet):
            given = source.model_dump(exclude_defaults=True).keys() - {"net"}
            if given:
                raise InvalidInput(
                    f"{trial.name}: source: expected no {', '.join(sorted(given))} of {source.net or evaluation.net}, which "
                    "solves nothing."
                )
    nets = {net for net in (evaluation.net, evaluation.control, *sources) if net}
    return {
        "evaluation": evaluation.model_dump(mode="json"),
        "version": code_version(),
        "nets": {net: weights_digest(load(net)) for net in sorted(nets)},
    }


def manifest(folder: Path, name: str) -> Path:
    """Where an evaluation's settings stand."""
    return folder / f"{name}.json"


def read_manifest(folder: Path, name: str) -> dict[str, Any]:
    """An evaluation's settings, and whether it is finished. Raises OutputError where they are missing or damaged."""
    path = manifest(folder, name)
    try:
        content: dict[str, Any] = json.loads(read_text(path))
        return {"settings": content["settings"], "finished": content["finished"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(f"{path}: missing or damaged. Name a folder that `odefend evaluate` wrote.") from error


def evaluations_in(folder: Path) -> list[str]:
    """The names of the evaluations that a folder holds."""
    return sorted(
        path.stem for path in folder.glob("*.json") if path.is_file() and b'"evaluation"' in path.read_bytes()
    )


def opened(folder: Path, name: str) -> tuple[Evaluation, Ledger, bool]:
    """An evaluation, its ledger, and whether it is finished, from its folder."""
    content = read_manifest(folder, name)
    try:
        evaluation = Evaluation(**content["settings"]["evaluation"])
    except (ValidationError, KeyError, TypeError) as error:
        raise OutputError(
            f"{manifest(folder, name)}: damaged, or written by another version of odefend. Run the evaluation anew."
        ) from error
    return evaluation, Ledger(folder / "ledger"), content["finished"]
