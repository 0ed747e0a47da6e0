"""Training: one readable loop over Lightning Fabric, resumable at every epoch."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric

from odefend.data import DATASETS, LabelledImages
from odefend.errors import CheckpointError, OutputError
from odefend.files import make_folder, write_atomically
from odefend.models import MODELS, Classifier, ODENet, save
from odefend.progress import Progress, Silent
from odefend.rng import stream
from odefend.training.card import make_card
from odefend.training.recipe import Recipe


@dataclass(frozen=True)
class _State:
    """What a training needs in order to go on: it is saved after each epoch."""

    net: Classifier
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler


def train(recipe: Recipe, folder: Path, progress: Progress | None = None) -> Path:
    """Train by a recipe; returns the path of the weights, `folder`/NAME.safetensors, with the card beside them.

    After each epoch the state is written to `folder`/NAME.state; a training that was stopped goes on from there and
    ends with the same weights (same device and number of threads). Raises CheckpointError where the state in the
    folder belongs to another recipe, and OutputError where the folder cannot be written.
    """
    progress = progress or Silent()
    folder = make_folder(folder)
    fabric = Fabric(accelerator="auto", devices=1, precision=recipe.precision)
    images = DATASETS[recipe.data]("train").to(fabric.device)
    batches = -(-len(images) // recipe.batch_size)
    with torch.random.fork_rng():
        _seed(recipe, "weights")
        net = MODELS[recipe.model](**recipe.options)
        if isinstance(net, ODENet):
            net = net.at(recipe.tolerance)
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.peak_learning_rate, total_steps=recipe.epochs * batches
        )
        state = _State(net, optimizer, schedule)
        path = folder / f"{recipe.name}.state"
        # Before the state is read back: precision and device decide what the tensors in it become.
        module, optimizer = fabric.setup(net, optimizer)
        epoch, seconds = _resume(state, recipe, path)
        progress.stage(f"train {recipe.name}", recipe.epochs)
        progress.advance(epoch)
        while epoch < recipe.epochs:
            began = time.perf_counter()
            _seed(recipe, "dropout", epoch)
            loss = _epoch(fabric, module, optimizer, schedule, images, recipe, epoch)
            epoch, seconds = epoch + 1, seconds + time.perf_counter() - began
            _remember(state, recipe, path, epoch, seconds)
            progress.advance(epoch, f"loss {loss:.4f}")
    net = net.float().eval().cpu()
    weights = save(net, make_card(net, recipe, seconds), folder / recipe.name)
    path.unlink(missing_ok=True)
    return weights


def _epoch(
    fabric: Fabric,
    module: Any,
    optimizer: Any,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: LabelledImages,
    recipe: Recipe,
    epoch: int,
) -> float:
    """One pass over the training images in an order of their own; returns the mean loss."""
    module.train()
    order = torch.from_numpy(stream(recipe.seed, recipe.name, "order", epoch).permutation(len(data)))
    total = torch.zeros((), device=data.images.device)
    for rows in order.split(recipe.batch_size):
        rows = rows.to(data.images.device)
        logits = module(data.images[rows])
        loss = F.cross_entropy(logits, data.labels[rows])
        fabric.backward(loss)
        fabric.clip_gradients(module, optimizer, max_norm=recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        total += loss.detach() * len(rows)
    return float(total) / len(data)


def _seed(recipe: Recipe, purpose: str, index: int = 0) -> None:
    """Make the draws of torch layers (initial weights, dropout) a function of recipe, purpose and epoch."""
    torch.manual_seed(int(stream(recipe.seed, recipe.name, purpose, index).integers(2**62)))


def _fingerprint(recipe: Recipe) -> str:
    return hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()


def _remember(state: _State, recipe: Recipe, path: Path, epoch: int, seconds: float) -> None:
    content = {
        "recipe": _fingerprint(recipe),
        "epoch": epoch,
        "seconds": seconds,
        "net": state.net.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
    }
    write_atomically(path, lambda part: torch.save(content, part))


def _resume(state: _State, recipe: Recipe, path: Path) -> tuple[int, float]:
    """(epochs done, seconds spent), with `state` brought to where an earlier run stopped, if there is one."""
    if not path.exists():
        return 0, 0.0
    try:
        # weights_only: a reader that can build tensors and plain containers, and execute nothing.
        content: dict[str, Any] = torch.load(path, weights_only=True)
        same = content["recipe"] == _fingerprint(recipe)
        epoch, seconds = content["epoch"], content["seconds"]
        if same:
            state.net.load_state_dict(content["net"])
            state.optimizer.load_state_dict(content["optimizer"])
            state.schedule.load_state_dict(content["schedule"])
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:
        raise CheckpointError(f"{path}: not a training state of odefend. Remove it to start again.") from error
    if not same:
        raise CheckpointError(
            f"{path}: belongs to a training with other settings. Remove it to start again, or choose another folder."
        )
    return epoch, seconds
