"""The loop over batches and epochs: one net, or model of images, on its way through a recipe."""

import math
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from odefend.data import LabelledImages, as_floats
from odefend.errors import InvalidInput, OdefendError
from odefend.models import IMAGE_MODELS, MODELS, Classifier, Epoch, ImageModel, ODENet, load
from odefend.progress import Progress
from odefend.rng import stream
from odefend.tensors import Images, Labels
from odefend.training.adversarial import attacked, divergence, unsure
from odefend.training.augment import DRAWS, augment
from odefend.training.measure import held_out_loss, loss_of, split_of
from odefend.training.noise import UnderNoise
from odefend.training.recipe import Recipe
from odefend.training.schedules import LearningRate, make_optimizer
from odefend.training.state import Saver, State

PREPARED = 256
"""How many training images set what is set from data before the first step."""


class Training:
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
        self.noisy = UnderNoise(net, recipe.noise.where) if recipe.noise and isinstance(net, Classifier) else None
        self.module, self.optimizer = fabric.setup(self.noisy or net, optimizer)
        self.net: Classifier | ImageModel = net
        self.rate = rate
        self.state = (saver and saver.resume(net, optimizer, rate.scheduler)) or State()
        self.state.begin()

    @property
    def values(self) -> int:
        """How many values the images of a batch have."""
        return self.recipe.batch_size * self.data.images[0].numel()

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

    def kept(self) -> Classifier | ImageModel:
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
        self.rate.epoch(loss if accuracy is None else -accuracy)
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
        return ", ".join(filter(None, (now, _told(state.history[-1]) if state.history else "")))

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
        total = weight * self._loss(images, self.data.labels[chosen], step, mine.numpy())
        # Fabric takes the mean of the devices' gradients.
        fabric.backward(total * (world / len(rows)))
        if recipe.gradient_clip:
            fabric.clip_gradients(self.module, self.optimizer, max_norm=recipe.gradient_clip)
        self.state.learning_rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.rate.step()
        return float(_summed(fabric, total.detach()))

    def _loss(self, images: Images, labels: Labels, step: int, mine: np.ndarray) -> Tensor:
        """Of the images, of what an attack makes of them, or of what noise does; summed."""
        recipe, how, net = self.recipe, self.recipe.adversarial, self.net
        if recipe.noise is not None and self.noisy is not None:
            with torch.no_grad():
                shape = self.noisy.shape(images)
            noise = recipe.noise.sigma * torch.from_numpy(self._normal("noise", step, shape)[mine])
            return loss_of(recipe, self.module(images, noise.to(images)), labels)
        if how is None or isinstance(net, ImageModel):
            return loss_of(recipe, self.module(images), labels)
        shape = (self.recipe.batch_size, *images.shape[1:])
        draws = torch.from_numpy(self._stream("adversarial", step).random(shape, dtype=np.float32)[mine])
        with self.fabric.autocast():
            moved = attacked(net, images, labels, how, how.radius(step / self.batches), draws)
        if not (how.beta or how.ccat):
            return loss_of(recipe, self.module(moved), labels)
        clean, there = self.module(torch.cat([images, moved])).chunk(2)
        if how.ccat:
            far = (moved - images).abs().flatten(1).amax(1) / how.epsilon
            return loss_of(recipe, clean, labels) + unsure(there, labels, (1 - far).clamp_min(0) ** how.ccat)
        return loss_of(recipe, clean, labels) + how.beta * divergence(clean, there)

    def _normal(self, purpose: str, step: int, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal numbers of this shape for each image of a batch."""
        draws = self._stream(purpose, step).standard_normal((self.recipe.batch_size, *shape), dtype=np.float32)
        assert isinstance(draws, np.ndarray)
        return draws

    def _validate(self) -> tuple[float | None, float]:
        """(accuracy, None for models of images; mean loss) on the validation split."""
        share = torch.arange(len(self.held_out))[self.fabric.global_rank :: self.fabric.world_size]
        mine: LabelledImages = self.held_out[share]
        self._seed("validation")
        sums = torch.tensor(held_out_loss(self.net.eval(), self.recipe, mine), dtype=torch.float64)
        right, loss = (_summed(self.fabric, sums.to(self.fabric.device)) / len(self.held_out)).tolist()
        return None if math.isnan(right) else right, loss

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


def _told(epoch: Epoch) -> str:
    """What an epoch brought, in a few words."""
    if epoch.validation_accuracy is None:
        return f"validation {epoch.validation_loss:.4f}"
    return f"validation {epoch.validation_accuracy:.2%}"


def _copied(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}


def _build(recipe: Recipe, data: LabelledImages) -> Classifier | ImageModel:
    """The untrained net. Raises InvalidInput where recipe, net and data do not fit together."""
    try:
        net = {**MODELS, **IMAGE_MODELS}[recipe.model](**recipe.options)
        if isinstance(net, ODENet):
            net = net.at(recipe.tolerance, **recipe.solver)
        if isinstance(net, ImageModel):
            net.prepare(data[:PREPARED].images.cpu())  # before the net goes to its device
        elif recipe.begin is not None:
            _begin(net, recipe.begin)
        with torch.no_grad():
            net.eval()(data[:2].images.cpu())
    except OdefendError:
        raise
    except Exception as error:  # whatever torch raises for arguments and shapes
        raise InvalidInput(
            f"{recipe.name}: the net {recipe.model!r} with {recipe.options} cannot take the pictures of {recipe.data}, "
            f"{tuple(data.pixels.shape[1:])}: {str(error).splitlines()[0]}"
        ) from error
    if isinstance(net, ImageModel):
        return net
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= net.classes:
        raise InvalidInput(
            f"{recipe.name}: expected labels 0 ... {net.classes - 1}, got {low} ... {high} in {recipe.data}."
        )
    if recipe.loss == "binary" and net.classes != 2:
        raise InvalidInput(f"{recipe.name}: the binary loss needs a net with two classes, got {net.classes}.")
    return net


def _begin(net: Classifier, name: str) -> None:
    """Give a net the weights of a trained one."""
    begun = load(name)
    try:
        net.load_state_dict(begun.state_dict())
    except RuntimeError as error:
        raise InvalidInput(
            f"begin: expected a trained net of the same model and options, got {name}: {str(error).splitlines()[1].strip()}"
        ) from error
