"""Training a net by a recipe over Lightning Fabric, or trying out how long that would take."""

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from pydantic import ValidationError

from odefend.errors import CheckpointError, InvalidInput, Stopped
from odefend.files import locked, make_folder
from odefend.models import IMAGE_MODELS, Card, ImageCard, ImageModel, save
from odefend.models.checkpoint import read_card, sha256
from odefend.progress import Progress, Silent
from odefend.threads import threads_for
from odefend.training.loop import Training
from odefend.training.measure import make_card, make_image_card
from odefend.training.recipe import Recipe
from odefend.training.state import Saver

# It would tell the precision, which the recipe tells.
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)


def train(recipe: Recipe, folder: Path, progress: Progress | None = None, **devices: Any) -> Path:
    """Train by a recipe; returns the path of the weights, `folder`/NAME.safetensors, with the card beside them.

    A training that is finished is not repeated. About once a minute and after each epoch the state is written to
    `folder`/NAME.state; a training that was stopped, in whatever way, goes on from there and ends with the same weights (same
    device and number of threads, which the card tells; on a CPU it is what `odefend.threads` finds when the training begins,
    unless OMP_NUM_THREADS says it).

    devices: Fabric's own arguments, `accelerator`, `devices`, `num_nodes`, `strategy`; default: one device, the best there
    is. Steps, and so results, differ between numbers of devices by rounding and by the draws of dropout.

    Raises CheckpointError where what is in the folder belongs to another recipe, OutputError where the folder cannot be written
    or another run is training this there, InvalidInput where recipe, net, data and devices do not fit together, and what the
    data set raises where it is not to be had.
    """
    folder = make_folder(folder)
    weights = folder / f"{recipe.name}.safetensors"
    if _finished(recipe, weights):
        return weights
    fabric = _fabric(recipe, devices)
    fabric.launch()
    progress = progress if progress and fabric.is_global_zero else Silent()
    with _alone(folder, recipe, fabric):
        _train(recipe, folder, fabric, progress)
    return weights


def _alone(folder: Path, recipe: Recipe, fabric: Fabric) -> AbstractContextManager[object]:
    """While no other run trains this; the first of the devices' processes speaks for all."""
    return (
        locked(folder / f".{recipe.name}.lock", f"training {recipe.name} here")
        if fabric.is_global_zero
        else nullcontext()
    )


def _train(recipe: Recipe, folder: Path, fabric: Fabric, progress: Progress) -> None:
    saver = Saver(folder / f"{recipe.name}.state", recipe)
    with torch.random.fork_rng():
        training = Training(recipe, fabric, saver)
        with threads_for(training.values):
            try:
                training.run(progress)
            except KeyboardInterrupt as error:
                if saver.path.exists():
                    raise Stopped from error
                raise
            _keep(training, folder, fabric, saver, progress)


def _keep(training: Training, folder: Path, fabric: Fabric, saver: Saver, progress: Progress) -> None:
    """Write the net with its card, and drop the state."""
    recipe = training.recipe
    if fabric.is_global_zero:
        net, device = training.kept(), _named(fabric)
        if isinstance(net, ImageModel):
            card = make_image_card(net, recipe, training.state, device)
        else:
            card = make_card(net, recipe, training.state, device, progress)
        save(net, card, folder / recipe.name)
        saver.remove()
    fabric.barrier()


@dataclass(frozen=True)
class Trial:
    """How fast a training runs: `seconds` for one of its `steps`, the first left out, on `device`."""

    seconds: float
    steps: int
    device: str
    loss: float

    @property
    def projected(self) -> float:
        """Seconds for the whole training, without its validation."""
        return self.seconds * self.steps


def try_out(recipe: Recipe, steps: int, progress: Progress | None = None, **devices: Any) -> Trial:
    """Run the first few steps of a recipe, and tell how long all of them would take; `devices` as for `train`. Nothing is
    written. Raises InvalidInput where an epoch has no more than that many steps.
    """
    fabric = _fabric(recipe, devices)
    fabric.launch()
    progress = progress if progress and fabric.is_global_zero else Silent()
    with torch.random.fork_rng():
        training = Training(recipe, fabric, None)
        if not 0 < steps < training.batches:
            raise InvalidInput(f"steps: expected 1 ... {training.batches - 1}, fewer than an epoch has, got {steps}.")
        progress.stage(f"try {recipe.name}", steps + 1)
        times, loss = [], 0.0
        with threads_for(training.values):
            for done in range(steps + 1):
                began = time.perf_counter()
                loss = training.learn() / recipe.batch_size
                times.append(time.perf_counter() - began)
                progress.advance(done + 1, f"{times[-1]:.2f} s a step")
    return Trial(sum(times[1:]) / steps, recipe.epochs * training.batches, _named(fabric), loss)


def _fabric(recipe: Recipe, devices: dict[str, Any]) -> Fabric:
    try:
        return Fabric(**({"accelerator": "auto", "devices": 1} | devices), precision=recipe.precision)
    except Exception as error:  # it raises whatever its parts do
        raise InvalidInput(f"devices: Lightning Fabric cannot use {devices}: {str(error).splitlines()[0]}") from error


def _finished(recipe: Recipe, weights: Path) -> bool:
    """Whether this training has been done before. Raises CheckpointError where another one has taken its place."""
    if not weights.with_suffix(".json").exists():
        return False
    card = read_card(weights.with_suffix(".json"), ImageCard if recipe.model in IMAGE_MODELS else Card)
    if not _same(card.recipe, recipe) or not weights.exists() or sha256(weights) != card.sha256:
        raise CheckpointError(
            f"{weights}: is damaged, or was trained with other settings. Choose another folder, or remove it and its card."
        )
    return True


def _same(told: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a card's recipe is this one; keys that an older one lacks are as they are by default."""
    try:
        return Recipe.model_validate(told).model_dump(mode="json") == recipe.model_dump(mode="json")
    except ValidationError:
        return False


def _named(fabric: Fabric) -> str:
    device = torch.cuda.get_device_name() if fabric.device.type == "cuda" else fabric.device.type
    return f"{fabric.world_size} x {device}"
