"""Hardening a trained net in a given time: training it further against attacks or under noise, and what that changed."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from odefend.engine.specs import data_of
from odefend.errors import InvalidInput, OutputError, unknown
from odefend.experiments import Cell, Column, DataPart, Experiment, MeasurePart, ModelPart, Row, TablePart, run
from odefend.files import make_folder, write_json
from odefend.ledger import Ledger
from odefend.metrics import Rows
from odefend.models import load, weights_digest
from odefend.progress import Progress
from odefend.report.filled import table
from odefend.report.table import Table
from odefend.studies.robustness import ALPHA, Effort, certificates, in_balls, smoothed_model
from odefend.training import Recipe, train, try_out
from odefend.training.measure import split_of

METHODS = ("adversarial", "smoothing")
TRIED = 5
"""Steps by which the time of a training is estimated."""
TRAINING = 0.9
"""Share of the time that training steps take; the rest is validation after each epoch."""


def plan(net: str, method: str, strength: float, minutes: float, folder: Path, progress: Progress) -> Recipe:
    """The training that hardens a net in about so many minutes: from its own weights, on its own data and by its own solver, with
    AdamW in one cycle.

    method: "adversarial", against PGD of 5 steps in an L-inf ball of radius `strength`, which grows in the first half; or
    "smoothing", under noise of that standard deviation. The plan is kept in `folder`, so that a hardening that was stopped goes
    on as it was begun.

    Raises InvalidInput where the net does not say how it was trained, where its data set took options, or where an epoch takes
    longer than there is time; OutputError where the folder holds another hardening.
    """
    if method not in METHODS:
        raise unknown("method of hardening", method, METHODS)
    if not 0 < strength <= 1:
        raise InvalidInput(
            f"strength: expected a radius or standard deviation in (0, 1], pixels being in [0, 1], got {strength}."
        )
    if not 0 < minutes < math.inf:
        raise InvalidInput(f"minutes: expected a time above 0, such as 10, got {minutes}.")
    data_of(net)
    path = folder / "plan.json"
    asked = {
        "net": net,
        "weights": weights_digest(load(net)),
        "method": method,
        "strength": strength,
        "minutes": minutes,
    }
    if path.exists():
        return _planned(path, asked)
    changes: dict[str, Any] = {"noise": {"sigma": strength}}
    if method == "adversarial":
        changes = {"adversarial": {"epsilon": strength, "steps": 5}}
    recipe = _further(net, {"name": f"{re.sub('[^A-Za-z0-9_-]', '-', Path(net).stem)}-{method}", **changes})
    batches = -(-len(split_of(recipe, "train")) // recipe.batch_size)
    if batches < 2:
        raise InvalidInput(
            f"{net}: expected two batches an epoch or more, by which training is timed, got {batches} of {recipe.batch_size}. "
            "Train the net by a recipe with a smaller batch_size or more images."
        )
    trial = try_out(recipe, min(TRIED, batches - 1), progress)
    epochs = math.floor(TRAINING * 60 * minutes / (trial.seconds * batches))
    if epochs < 1:
        needed = trial.seconds * batches / 60 / TRAINING
        raise InvalidInput(
            f"minutes: expected at least {math.ceil(needed)}, which an epoch takes here, got {minutes:g}."
        )
    if recipe.adversarial:
        changes = {"adversarial": {"epsilon": strength, "steps": 5, "ramp": epochs // 2}}
    recipe = Recipe.model_validate(recipe.model_dump() | changes | {"epochs": epochs})
    make_folder(folder)
    write_json(path, {"asked": asked, "recipe": recipe.model_dump(mode="json")})
    return recipe


def _planned(path: Path, asked: dict[str, Any]) -> Recipe:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        same, recipe = told["asked"] == asked, Recipe.model_validate(told["recipe"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(f"{path}: damaged. Remove it, or choose another folder.") from error
    if not same:
        raise OutputError(f"{path}: of another hardening, {told['asked']}. Choose another folder.")
    return recipe


def _further(net: str, changes: dict[str, Any]) -> Recipe:
    """The recipe of a net's card, begun from its weights, in small steps."""
    card = load(net).card
    usual = {
        "scale": "desk",
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "weight_decay": 0.0,
        "gradient_clip": 1.0,
        "schedule": {"name": "one-cycle"},
        "keep": "last",
        "adversarial": None,
        "noise": None,
        "begin": net,
    }
    assert card is not None
    try:
        told = Recipe.model_validate(card.recipe)
    except ValidationError as error:
        raise InvalidInput(
            f"{net}: expected a net with a card that tells its recipe, from which it can be trained further. Train one with "
            "`odefend train`."
        ) from error
    return Recipe.model_validate(told.model_dump() | usual | changes)


@dataclass(frozen=True)
class Hardened:
    """A net and what came of hardening it: its `weights`, the `ledger` of `before_and_after`, and its `table`."""

    weights: Path
    ledger: Ledger
    table: Table


def harden(
    net: str,
    method: str,
    strength: float,
    minutes: float,
    folder: Path,
    progress: Progress,
    images: int = 200,
    workers: int | None = None,
    effort: Effort = Effort(),  # noqa: B008
) -> Hardened:
    """Train a net further, in about so many minutes, and measure it beside what it was on so many test images; see `plan`. What
    was stopped goes on when called again."""
    recipe = plan(net, method, strength, minutes, folder, progress)
    weights = train(recipe, folder, progress)
    experiment = before_and_after(net, weights, recipe, images, effort)
    ledger = run(experiment, folder, progress, workers)
    return Hardened(weights, ledger, table(experiment.tables[0], Rows.read(ledger, experiment.name), experiment))


def before_and_after(net: str, weights: Path, recipe: Recipe, images: int, effort: Effort) -> Experiment:
    """Both nets: accuracy, clean and in balls, what is certified of one trained under noise, and what an answer costs."""
    nets = {Path(one).stem: str(one) for one in (net, weights)}
    ball, sigma = recipe.adversarial and recipe.adversarial.epsilon, recipe.noise and recipe.noise.sigma
    epsilons = (*((ball / 2, ball) if ball else ()), *((sigma / 4,) if sigma else ()))
    smoothed = {f"{name}, smoothed": smoothed_model(path, sigma) for name, path in nets.items()} if sigma else {}
    certified = certificates(smoothed, min(images, 100), effort)
    attacks = in_balls(tuple(nets), epsilons, effort)
    return Experiment(
        name="before-and-after",
        data={"test": DataPart(set=recipe.data, count=images, sample=0)},
        models={name: ModelPart(net=path) for name, path in nets.items()} | smoothed,
        attacks=attacks,
        measures={"clean": MeasurePart(measure="predict", models=tuple(nets))}
        | ({"certified": certified} if smoothed else {}),
        tables=(overview(recipe.data, tuple(nets), tuple(attacks), epsilons, sigma, effort),),
    )


def overview(
    data: str,
    nets: tuple[str, ...],
    attacks: tuple[str, ...],
    epsilons: tuple[float, ...],
    sigma: float | None,
    effort: Effort,
) -> TablePart:
    """Each net in one row."""
    radii = tuple(share * sigma for share in (0.5, 1.0, 1.5)) if sigma else ()
    proofs = f" Certified: {effort.draws} draws of noise of sigma {sigma:g}, alpha {ALPHA:g}." if sigma else ""
    return TablePart(
        title=f"Before and after, on {data}",
        heads=("net",),
        rows=tuple(Row(label=net, model=net, measure="clean", other=Cell(model=f"{net}, smoothed")) for net in nets),
        where=Cell(attack=attacks),
        columns=(
            Column(head="clean accuracy", metric="accuracy"),
            *(Column(head=f"robust, L-inf {one:g}", metric="robust accuracy", epsilon=one) for one in epsilons),
            *(Column(head=f"certified, L2 {one:g}", metric="certified", of="other", radius=one) for one in radii),
            Column(head="NFE per image", metric="NFE"),
        ),
        note=f"{{images}}. Robust: under PGD of {effort.steps} steps on cross-entropy and the margin, restarts: {effort.restarts}, "
        f"and along other solves and the other net's gradient; the worst case for each image.{proofs}",
    )
