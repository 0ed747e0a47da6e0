"""Training, trials, and the list of recipes."""

from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only

from odefend.cli.output import print_json, say, show
from odefend.cli.progress import clock, duration, showing
from odefend.models import IMAGE_MODELS, MODELS, Card, ImageCard, count_parameters, load, load_image_model
from odefend.report import Table
from odefend.training import read_recipe, recipe_names, scales_of, train, try_out


def run_train(
    name: str, scale: str, changes: dict[str, Any], out: Path, fabric: dict[str, Any], quiet: bool, as_json: bool
) -> None:
    """A training."""
    recipe = read_recipe(name, scale, changes)
    with showing(quiet) as progress:
        weights = train(recipe, out, progress, **fabric)
    if getattr(rank_zero_only, "rank", 0):  # other devices' processes have nothing to add
        return
    card = (load_image_model(weights) if recipe.model in IMAGE_MODELS else load(weights)).card
    assert card is not None
    if as_json:
        print_json({"weights": str(weights), "card": card.model_dump()})
        return
    say(
        f"{recipe.name}: {_measured(card)}, trained in {clock(card.wall_seconds)}",
        f"Weights: {weights}",
        f"Card: {weights.with_suffix('.json')}",
    )


def _measured(card: Card | ImageCard) -> str:
    if isinstance(card, ImageCard):
        return "on the test split " + ", ".join(
            f"{name} {found.value:.4g} [{found.low:.4g}, {found.high:.4g}]" for name, found in card.measured.items()
        )
    right = card.test_accuracy
    return (
        f"{100 * right.rate:.2f} % [{100 * right.low:.2f}, {100 * right.high:.2f}] of {right.images} test images right "
        f"({right.settings})"
    )


def run_trial(
    name: str, scale: str, changes: dict[str, Any], steps: int, fabric: dict[str, Any], quiet: bool, as_json: bool
) -> None:
    """A few steps, and what they say of the whole."""
    recipe = read_recipe(name, scale, changes)
    with showing(quiet) as progress:
        trial = try_out(recipe, steps, progress, **fabric)
    if as_json:
        print_json(
            {
                "recipe": recipe.name,
                "seconds_per_step": trial.seconds,
                "steps": trial.steps,
                "projected_seconds": trial.projected,
                "device": trial.device,
                "loss": trial.loss,
            }
        )
        return
    say(
        f"{recipe.name}: {trial.seconds:.3f} s a step of {recipe.batch_size} images on {trial.device} in {recipe.precision}, "
        f"over {steps} steps; loss {trial.loss:.3f}",
        f"All {trial.steps:,} steps ({recipe.epochs} epochs): about {duration(trial.projected)}, without validation.",
    )


def run_recipes(as_json: bool) -> None:
    """The list of recipes."""
    found = [(name, scale, read_recipe(name, scale)) for name in recipe_names() for scale in scales_of(name)]
    if as_json:
        print_json([recipe.model_dump(mode="json") for _, _, recipe in found])
        return
    rows = tuple(
        (
            name,
            scale,
            recipe.model,
            f"{count_parameters({**MODELS, **IMAGE_MODELS}[recipe.model](**recipe.options)):,}",
            recipe.data,
            f"{recipe.epochs}",
            f"{recipe.optimizer}, {recipe.schedule.name} {recipe.learning_rate:g}",
            recipe.precision,
        )
        for name, scale, recipe in found
    )
    columns = ("recipe", "scale", "net", "parameters", "data", "epochs", "optimizer", "precision")
    show(Table("Recipes", columns, rows, "odefend train RECIPE --scale SCALE; desk is the default."))
