"""Training: one readable loop over Lightning Fabric that can be killed at any step."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from odefend.data import LabelledImages, as_floats
from odefend.errors import CheckpointError, InvalidInput, OdefendError
from odefend.files import make_folder
from odefend.models import MODELS, Classifier, ODENet, save
from odefend.models.checkpoint import read_card, sha256
from odefend.progress import Progress, Silent
from odefend.rng import stream
from odefend.training.augment import DRAWS, augment
from odefend.training.measure import as_judged, loss_of, make_card, predict, split_of
from odefend.training.recipe import Recipe
from odefend.training.schedules import LearningRate, make_optimizer
from odefend.training.state import Saver, State

# It would tell the precision, which the recipe tells.
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)


def train(recipe: Recipe, folder: Path, progress: Progress | None = None, **devices: Any) -> Path:
    """Train by a recipe; returns the path of the weights, `folder`/NAME.safetensors, with the card beside them.

    A training that is finished is not repeated. About once a minute and after each epoch the state is written to
    `folder`/NAME.state; a training that was stopped, in whatever way, goes on from there and ends with the same weights (same
    device and number of threads).

    devices: Fabric's own arguments, `accelerator`, `devices`, `num_nodes`, `strategy`; default: one device, the best there
    is. Steps, and so results, differ between numbers of devices by rounding and by the draws of dropout.

    Raises CheckpointError where what is in the folder belongs to another recipe, OutputError where the folder cannot be
    written, InvalidInput where recipe, net, data and devices do not fit together, and what the data set raises where it is
    not to be had.
    """
    folder = make_folder(folder)
    weights = folder / f"{recipe.name}.safetensors"
    if _finished(recipe, weights):
        return weights
    fabric = _fabric(recipe, devices)
    fabric.launch()
    progress = progress if progress and fabric.is_global_zero else Silent()
    saver = Saver(folder / f"{recipe.name}.state", recipe)
    with torch.random.fork_rng():
        training = _Training(recipe, fabric, saver)
        training.run(progress)
    if fabric.is_global_zero:
        net = training.kept()
        save(net, make_card(net, recipe, training.state, _named(fabric), progress), folder / recipe.name)
        saver.remove()
    fabric.barrier()
    return weights


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
        training = _Training(recipe, fabric, None)
        if not 0 < steps < training.batches:
            raise InvalidInput(f"steps: expected 1 ... {training.batches - 1}, fewer than an epoch has, got {steps}.")
        progress.stage(f"try {recipe.name}", steps + 1)
        times, loss = [], 0.0
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
    card = read_card(weights.with_suffix(".json"))
    if card.recipe != recipe.model_dump(mode="json") or not weights.exists() or sha256(weights) != card.sha256:
        raise CheckpointError(
            f"{weights}: is damaged, or was trained with other settings. Choose another folder, or remove it and its card."
        )
    return True


def _build(recipe: Recipe, data: LabelledImages) -> Classifier:
    """The untrained net. Raises InvalidInput where recipe, net and data do not fit together."""
    try:
        net = MODELS[recipe.model](**recipe.options)
        if isinstance(net, ODENet):
            net = net.at(recipe.tolerance, **recipe.solver)
        with torch.no_grad():
            net.eval()(data[:2].images)
    except OdefendError:
        raise
    except Exception as error:  # whatever torch raises for arguments and shapes
        raise InvalidInput(
            f"{recipe.name}: the net {recipe.model!r} with {recipe.options} cannot take the pictures of {recipe.data}, "
            f"{tuple(data.pixels.shape[1:])}: {str(error).splitlines()[0]}"
        ) from error
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= net.classes:
        raise InvalidInput(
            f"{recipe.name}: expected labels 0 ... {net.classes - 1}, got {low} ... {high} in {recipe.data}."
        )
    if recipe.loss == "binary" and net.classes != 2:
        raise InvalidInput(f"{recipe.name}: the binary loss needs a net with two classes, got {net.classes}.")
    return net


def _named(fabric: Fabric) -> str:
    device = torch.cuda.get_device_name() if fabric.device.type == "cuda" else fabric.device.type
    return f"{fabric.world_size} x {device}"


class _Training:
    """A net on its way through a recipe; without `saver`, nothing is kept of it."""

    def __init__(self, recipe: Recipe, fabric: Fabric, saver: Saver | None) -> None:
        self.recipe, self.fabric, self.saver = recipe, fabric, saver
        self.data = split_of(recipe, "train").to(fabric.device)
        self.held_out = split_of(recipe, "validation").to(fabric.device)
        self.order: tuple[int, tuple[Tensor, ...]] | None = None  # an epoch, and its batches
        self.batches = -(-len(self.data) // recipe.batch_size)
        self._seed("weights")
        net = _build(recipe, self.data)
        optimizer = make_optimizer(net, recipe)
        rate = LearningRate(optimizer, recipe, self.batches)
        # Before the state is read back: precision and device decide what the tensors in it become.
        self.module: Any
        self.optimizer: Any
        self.module, self.optimizer = fabric.setup(net, optimizer)
        self.net: Classifier = net
        self.rate = rate
        self.state = (saver and saver.resume(net, optimizer, rate.scheduler)) or State()
        self.state.begin()

    def run(self, progress: Progress) -> None:
        """Go on to the end of the last epoch."""
        recipe, state = self.recipe, self.state
        progress.stage(f"train {recipe.name}", recipe.epochs * self.batches)
        progress.advance(state.epoch * self.batches + state.step)
        while state.epoch < recipe.epochs:
            with state.clock():
                self._epoch(progress)
            self._remember()
            progress.advance(state.epoch * self.batches, self._note())

    def kept(self) -> Classifier:
        """The net with the weights that the recipe keeps, on the CPU, to be judged."""
        if self.state.best:
            self.net.load_state_dict(self.state.best)
        return self.net.float().eval().cpu()

    def _epoch(self, progress: Progress) -> None:
        """The rest of a pass over the training images, in an order of its own, and what it brought."""
        recipe, state = self.recipe, self.state
        while state.step < self.batches:
            self.learn()
            if self.saver and self.saver.is_due():
                state.tick()
                self._remember()
            progress.advance(state.epoch * self.batches + state.step, self._note())
        accuracy, loss = self._validate()
        self.rate.epoch(accuracy)
        state.end_epoch(len(self.data), accuracy, loss)
        score = {"best-accuracy": accuracy, "best-loss": -loss}.get(recipe.keep)
        if score is not None and score > state.best_score:
            state.best_score, state.best = score, _copied(self.net)

    def learn(self) -> float:
        """Take the next step; returns the loss summed over its batch."""
        state = self.state
        if self.order is None or self.order[0] != state.epoch:
            rows = torch.from_numpy(self._stream("order", state.epoch).permutation(len(self.data)))
            self.order = state.epoch, rows.split(self.recipe.batch_size)
        self.module.train()
        loss = self._step(self.order[1][state.step])
        state.step, state.loss = state.step + 1, state.loss + loss
        return loss

    def _note(self) -> str:
        state = self.state
        seen = min(state.step * self.recipe.batch_size, len(self.data))
        now = f"epoch {state.epoch + 1} of {self.recipe.epochs}, loss {state.loss / seen:.4f}" if seen else ""
        last = f"validation {state.history[-1].validation_accuracy:.2%}" if state.history else ""
        return ", ".join(filter(None, (now, last)))

    def _step(self, rows: Tensor) -> float:
        """Learn from a batch, of which each device takes its share; returns the loss summed over the batch."""
        recipe, fabric, step = self.recipe, self.fabric, self.state.epoch * self.batches + self.state.step
        world, rank = fabric.world_size, fabric.global_rank
        mine = torch.arange(len(rows))[rank::world]
        weight = float(len(mine) > 0)
        if not len(mine):  # the last batch of an epoch may be smaller than the number of devices
            mine = torch.zeros(1, dtype=torch.int64)
        chosen = rows[mine].to(self.data.pixels.device)
        draws = self._stream("augmentation", step).random((len(rows), DRAWS))[mine.numpy()]
        images = augment(as_floats(self.data.pixels[chosen]), recipe.augmentation, draws)
        self._seed("dropout", step * world + rank)
        total = weight * loss_of(recipe, self.module(images), self.data.labels[chosen])
        # Fabric takes the mean of the devices' gradients.
        fabric.backward(total * (world / len(rows)))
        if recipe.gradient_clip:
            fabric.clip_gradients(self.module, self.optimizer, max_norm=recipe.gradient_clip)
        self.state.learning_rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.rate.step()
        return float(_summed(fabric, total.detach()))

    def _validate(self) -> tuple[float, float]:
        """(accuracy, mean loss) on the validation split, in the precision that nets are judged in."""
        share = torch.arange(len(self.held_out))[self.fabric.global_rank :: self.fabric.world_size]
        mine: LabelledImages = self.held_out[share]
        said = predict(as_judged(self.net.eval(), self.recipe), mine)
        found = torch.stack(
            [said.correct(mine.labels).sum().double(), loss_of(self.recipe, said.logits, mine.labels).double()]
        )
        right, loss = (_summed(self.fabric, found) / len(self.held_out)).tolist()
        return right, loss

    def _remember(self) -> None:
        if self.saver and self.fabric.is_global_zero:
            self.saver.save(self.net, self.optimizer, self.rate.scheduler, self.state)

    def _stream(self, purpose: str, index: int = 0) -> Any:
        return stream(self.recipe.seed, self.recipe.name, purpose, index)

    def _seed(self, purpose: str, index: int = 0) -> None:
        """Make the draws of torch layers (initial weights, dropout) a function of recipe, purpose and step."""
        torch.manual_seed(int(self._stream(purpose, index).integers(2**62)))


def _summed(fabric: Fabric, value: Tensor) -> Tensor:
    """The sum over all devices."""
    return fabric.all_reduce(value, reduce_op="sum") if fabric.world_size > 1 else value  # type: ignore[return-value]


def _copied(net: Classifier) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}
