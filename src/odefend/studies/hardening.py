"""Hardening a trained net in a given time: training it further against attacks or under noise, and what that changed."""

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from odefend.errors import InvalidInput, OutputError, unknown
from odefend.evaluation import Ledger
from odefend.evaluation.views import data_of
from odefend.files import make_folder, write_json
from odefend.models import load, weights_digest
from odefend.progress import Progress
from odefend.report import Table
from odefend.studies import hardened, hardened_report
from odefend.training import Recipe, train, try_out
from odefend.training.measure import split_of

WAYS = ("adversarial", "smoothing")
TRIED = 5
"""Steps by which the time of a training is estimated."""
TRAINING = 0.9
"""Share of the time that training steps take; the rest is validation after each epoch."""


def plan(net: str, way: str, strength: float, minutes: float, folder: Path, progress: Progress) -> Recipe:
    """The training that hardens a net in about so many minutes: from its own weights, on its own data and by its own solver, with
    AdamW in one cycle.

    way: "adversarial", against PGD of 5 steps in an L-inf ball of radius `strength`, which grows in the first half; or
    "smoothing", under noise of that standard deviation. The plan is kept in `folder`, so that a hardening that was stopped goes
    on as it was begun.

    Raises InvalidInput where the net does not say how it was trained, where its data set took options, or where an epoch takes
    longer than there is time; OutputError where the folder holds another hardening.
    """
    if way not in WAYS:
        raise unknown("way of hardening", way, WAYS)
    if not 0 < strength <= 1:
        raise InvalidInput(
            f"strength: expected a radius or standard deviation in (0, 1], pixels being in [0, 1], got {strength}."
        )
    if not 0 < minutes < math.inf:
        raise InvalidInput(f"minutes: expected a time above 0, such as 10, got {minutes}.")
    data_of(net)
    path = folder / "plan.json"
    asked = {"net": net, "weights": weights_digest(load(net)), "way": way, "strength": strength, "minutes": minutes}
    if path.exists():
        return _planned(path, asked)
    changes: dict[str, Any] = {"noise": {"sigma": strength}}
    if way == "adversarial":
        changes = {"adversarial": {"epsilon": strength, "steps": 5}}
    recipe = _further(net, {"name": f"{re.sub('[^A-Za-z0-9_-]', '-', Path(net).stem)}-{way}", **changes})
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
    """A net and what came of hardening it: `weights`, and the ledger in which both are measured by `setup`."""

    weights: Path
    setup: hardened.Setup
    ledger: Ledger

    @property
    def table(self) -> Table:
        """Both nets: accuracy, clean and under the worst of the attacks, what is certified, and what an answer costs."""
        return hardened_report.overview(hardened_report.Rows.of(self.ledger, self.setup.name), self.setup)


def harden(
    net: str,
    way: str,
    strength: float,
    minutes: float,
    folder: Path,
    progress: Progress,
    images: int = 200,
    workers: int | None = None,
) -> Hardened:
    """Train a net further, in about so many minutes, and measure it beside what it was on so many test images; see `plan`. What
    was stopped goes on when called again."""
    recipe = plan(net, way, strength, minutes, folder, progress)
    weights = train(recipe, folder, progress)
    setup = measured(net, weights, recipe, images)
    return Hardened(weights, setup, hardened.measure(folder / "ledger", setup, progress, workers))


def measured(net: str, weights: Path, recipe: Recipe, images: int) -> hardened.Setup:
    """What is measured of both nets: accuracy in balls, and, trained under noise, what can be certified."""
    nets = (net, str(weights))
    usual = hardened.Setup(recipe.data, nets, images=images, thorough=0, certified=min(images, 100), draws=500)
    if recipe.adversarial:
        return replace(usual, epsilons=(recipe.adversarial.epsilon / 2, recipe.adversarial.epsilon))
    assert recipe.noise is not None
    sigma = recipe.noise.sigma
    return replace(usual, smoothed=tuple(hardened.Smoothed(one, sigma) for one in nets), epsilons=(sigma / 4,))
