"""What a training measures of its net or model of images: on held-out images after each epoch, and for the card at its end."""

import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odefend.data import LabelledImages, named_data
from odefend.intervals import mean, rate
from odefend.models import (
    IMAGE_MODELS,
    Card,
    Classifier,
    ImageCard,
    ImageModel,
    Mean,
    Measured,
    ODENet,
    Prediction,
    count_parameters,
    join,
)
from odefend.progress import Progress
from odefend.tensors import Images
from odefend.training.recipe import Recipe
from odefend.training.state import State
from odefend.version import VERSION

ACCURACY_TOLERANCES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Those of Table I of Carrara et al. (WIFS 2019); judged on the whole test split."""

NFE_TOLERANCES = (1e-5, 1e-6)
"""Further ones, which are dear: only their cost is measured, on the first NFE_IMAGES test images."""

NFE_IMAGES = 200

BATCH = 500


HOW_NOT_WHAT = ("gradient", "adjoint_tolerance", "coupling", "compiled")
"""Solver settings of a training that do not belong to the trained net."""


def split_of(recipe: Recipe, split: str) -> LabelledImages:
    """One of the splits that the recipe names: the whole of it, or the first of its images if it says so."""
    return named_data(recipe.data, split, recipe.data_options)[: recipe.images]


def as_judged(net: Classifier, recipe: Recipe, tolerance: float | None = None) -> Classifier:
    """The net as it is judged and will be loaded: each image solved on its own, at the recipe's tolerance or another."""
    if not isinstance(net, ODENet):
        return net
    at = recipe.tolerance if tolerance is None else tolerance
    return net.at(at, coupling="sample", gradient="unrolled", adjoint_tolerance=None)


def loss_of(recipe: Recipe, logits: Tensor, labels: Tensor) -> Tensor:
    """The recipe's loss, summed over the images; models of images tell it themselves, for each image."""
    if recipe.model in IMAGE_MODELS:
        return logits.sum()
    if recipe.loss == "binary":
        return F.binary_cross_entropy_with_logits(logits[:, 1], labels.to(logits.dtype), reduction="sum")
    return F.cross_entropy(logits, labels, reduction="sum")


@torch.no_grad()
def predict(net: Classifier, data: LabelledImages) -> Prediction:
    """The predictions for all images, a few hundred at a time."""
    dtype = next(net.parameters()).dtype
    return join([net.predict(data[i : i + BATCH].images.to(dtype)) for i in range(0, len(data), BATCH)])


@torch.no_grad()
def held_out_loss(net: Classifier | ImageModel, recipe: Recipe, data: LabelledImages) -> tuple[float, float]:
    """(number of right answers, loss), summed over the images, in the precision that nets are judged in; for models of images
    the first is nan."""
    if isinstance(net, Classifier):
        said = predict(as_judged(net, recipe), data)
        return float(said.correct(data.labels).sum()), float(loss_of(recipe, said.logits, data.labels))
    return float("nan"), sum(float(net(some).sum()) for some in _batches(net, data))


def _batches(net: nn.Module, data: LabelledImages) -> list[Images]:
    dtype = next(net.parameters()).dtype
    return [data[start : start + BATCH].images.to(dtype) for start in range(0, len(data), BATCH)]


@torch.no_grad()
def make_image_card(model: ImageModel, recipe: Recipe, state: State, device: str) -> ImageCard:
    """The card of a model of images just trained: what it tells of itself on the test split. The generator is seeded."""
    test = split_of(recipe, "test")
    torch.manual_seed(recipe.seed)
    parts = [model.measures(some) for some in _batches(model, test)]
    found = {name: mean(torch.cat([part[name] for part in parts]).double().numpy()) for name in parts[0]}
    return ImageCard(
        measured={
            name: Mean(value=one.value, low=one.low, high=one.high, images=len(test)) for name, one in found.items()
        },
        **_common(model, recipe, state, device),
    )


def _common(net: nn.Module, recipe: Recipe, state: State, device: str) -> dict[str, Any]:
    """What both kinds of cards have."""
    train = split_of(recipe, "train")
    return {
        "name": recipe.name,
        "model": recipe.model,
        "options": recipe.options,
        "parameters": count_parameters(net),
        "data": recipe.data,
        "data_digest": train.digest,
        "recipe": recipe.model_dump(mode="json"),
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "images_seen": recipe.epochs * len(train),
        "wall_seconds": round(state.seconds, 1),
        "device": device,
        "threads": torch.get_num_threads(),
        "history": state.history,
        "versions": {"odefend": VERSION, "torch": torch.__version__, "python": platform.python_version()}
        | {"code": " ".join(state.code)},
    }


def make_card(net: Classifier, recipe: Recipe, state: State, device: str, progress: Progress) -> Card:
    """The card of a net just trained: accuracy on the test split with its interval, and, for an ODE net, accuracy and
    NFE by tolerance."""
    test = split_of(recipe, "test")
    is_ode = isinstance(net, ODENet)
    accuracy, nfe = {}, {}
    tolerances = (*ACCURACY_TOLERANCES, *NFE_TOLERANCES) if is_ode else ()
    progress.stage(f"measure {recipe.name}", len(tolerances) or 1)
    for done, tolerance in enumerate(tolerances):
        some = test if tolerance in ACCURACY_TOLERANCES else test[:NFE_IMAGES]
        said = predict(as_judged(net, recipe, tolerance), some)
        nfe[f"{tolerance:g}"] = round(said.nfe.double().mean().item(), 2)
        if some is test:
            accuracy[f"{tolerance:g}"] = _measured(said, test, recipe, tolerance)
        progress.advance(done + 1)
    at = recipe.tolerance if is_ode else None
    right = accuracy.get(f"{at:g}") if at else None
    right = right or _measured(predict(as_judged(net, recipe), test), test, recipe, at)
    return Card(
        tolerance=recipe.tolerance if is_ode else None,
        solver={name: value for name, value in recipe.solver.items() if name not in HOW_NOT_WHAT} if is_ode else {},
        test_accuracy=right,
        accuracy_at=accuracy,
        mean_nfe=nfe,
        **_common(net, recipe, state, device),
    )


def _measured(said: Prediction, test: LabelledImages, recipe: Recipe, tolerance: float | None) -> Measured:
    right = int(said.correct(test.labels).sum())
    share = rate(right, len(test))
    part = "test split" if recipe.images is None else f"first {len(test)} of the test split"
    settings = f"{part} of {recipe.data}, float32" + ("" if tolerance is None else f", tolerance {tolerance:g}")
    return Measured(
        successes=right, images=len(test), rate=share.value, low=share.low, high=share.high, settings=settings
    )
