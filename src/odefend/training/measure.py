"""What a training measures of its net: on held-out images after each epoch, and for the card at its end."""

import platform

import torch
import torch.nn.functional as F
from torch import Tensor

from odefend.data import DATASETS, LabelledImages
from odefend.intervals import rate
from odefend.models import Card, Classifier, Epoch, Measured, ODENet, Prediction, count_parameters, join
from odefend.progress import Progress
from odefend.training.recipe import Recipe
from odefend.version import VERSION

NFE_TOLERANCES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
NFE_IMAGES = 1_000
ACCURACY_TOLERANCES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Those of Table I of Carrara et al. (WIFS 2019)."""

BATCH = 500


def split_of(recipe: Recipe, split: str) -> LabelledImages:
    """One of the splits that the recipe names: the whole of it, or the first of its images if it says so."""
    return DATASETS[recipe.data](split, **recipe.data_options)[: recipe.images]


def loss_of(recipe: Recipe, logits: Tensor, labels: Tensor) -> Tensor:
    """The recipe's loss, summed over the images."""
    if recipe.loss == "binary":
        return F.binary_cross_entropy_with_logits(logits[:, 1], labels.to(logits.dtype), reduction="sum")
    return F.cross_entropy(logits, labels, reduction="sum")


@torch.no_grad()
def predict(net: Classifier, data: LabelledImages) -> Prediction:
    """The predictions for all images, a few hundred at a time."""
    dtype = next(net.parameters()).dtype
    return join([net.predict(data[i : i + BATCH].images.to(dtype)) for i in range(0, len(data), BATCH)])


def make_card(
    net: Classifier, recipe: Recipe, history: list[Epoch], seconds: float, device: str, progress: Progress
) -> Card:
    """The card of a net just trained: accuracy on the test split with its interval, and, for an ODE net, accuracy and
    NFE by tolerance."""
    train, test = split_of(recipe, "train"), split_of(recipe, "test")
    is_ode = isinstance(net, ODENet)
    progress.stage(f"measure {recipe.name}", len(ACCURACY_TOLERANCES) + len(NFE_TOLERANCES) if is_ode else 1)
    accuracy, nfe = {}, {}
    if isinstance(net, ODENet):
        for done, tolerance in enumerate(ACCURACY_TOLERANCES):
            accuracy[f"{tolerance:g}"] = _measured(net.at(tolerance), test, recipe, tolerance)
            progress.advance(done + 1)
        for done, tolerance in enumerate(NFE_TOLERANCES, len(ACCURACY_TOLERANCES)):
            said = predict(net.at(tolerance), test[:NFE_IMAGES])
            nfe[f"{tolerance:g}"] = round(said.nfe.double().mean().item(), 2)
            progress.advance(done + 1)
        net = net.at(recipe.tolerance)
    known = accuracy.get(f"{recipe.tolerance:g}") if is_ode else None
    right = known or _measured(net, test, recipe, recipe.tolerance if is_ode else None)
    progress.advance(len(accuracy) + len(nfe) or 1)
    return Card(
        name=recipe.name,
        model=recipe.model,
        options=recipe.options,
        parameters=count_parameters(net),
        tolerance=recipe.tolerance if is_ode else None,
        data=recipe.data,
        data_digest=train.digest,
        recipe=recipe.model_dump(mode="json"),
        seed=recipe.seed,
        epochs=recipe.epochs,
        images_seen=recipe.epochs * len(train),
        wall_seconds=round(seconds, 1),
        device=device,
        threads=torch.get_num_threads(),
        history=history,
        test_accuracy=right,
        accuracy_at=accuracy,
        mean_nfe=nfe,
        versions={"odefend": VERSION, "torch": torch.__version__, "python": platform.python_version()},
    )


def _measured(net: Classifier, test: LabelledImages, recipe: Recipe, tolerance: float | None) -> Measured:
    right = int(predict(net, test).correct(test.labels).sum())
    share = rate(right, len(test))
    settings = f"test split of {recipe.data}, float32" + ("" if tolerance is None else f", tolerance {tolerance:g}")
    return Measured(
        successes=right, images=len(test), rate=share.value, low=share.low, high=share.high, settings=settings
    )
