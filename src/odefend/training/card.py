"""What a finished training measures of its net, for the card."""

import platform

import torch

from odefend.data import DATASETS
from odefend.intervals import rate
from odefend.models import Card, Classifier, Measured, ODENet, count_parameters
from odefend.training.recipe import Recipe
from odefend.version import VERSION

NFE_TOLERANCES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@torch.no_grad()
def make_card(net: Classifier, recipe: Recipe, seconds: float) -> Card:
    """The card of a net just trained: accuracy on the test split with its interval, NFE by tolerance."""
    train, test = DATASETS[recipe.data]("train"), DATASETS[recipe.data]("test")
    judge = net.at(recipe.tolerance) if isinstance(net, ODENet) else net
    right = rate(int(judge.predict(test.images).correct(test.labels).sum()), len(test))
    nfe = {}
    if isinstance(net, ODENet):
        nfe = {
            f"{tolerance:g}": round(net.at(tolerance).predict(test.images).nfe.double().mean().item(), 2)
            for tolerance in NFE_TOLERANCES
        }
    return Card(
        name=recipe.name,
        model=recipe.model,
        options=recipe.options,
        parameters=count_parameters(net),
        tolerance=recipe.tolerance if isinstance(net, ODENet) else None,
        data=recipe.data,
        data_digest=train.digest,
        recipe=recipe.model_dump(),
        seed=recipe.seed,
        epochs=recipe.epochs,
        images_seen=recipe.epochs * len(train),
        wall_seconds=round(seconds, 1),
        test_accuracy=Measured(
            successes=round(right.value * len(test)),
            images=len(test),
            rate=right.value,
            low=right.low,
            high=right.high,
            settings=f"test split of {recipe.data}, float32"
            + (f", tolerance {recipe.tolerance:g}" if isinstance(net, ODENet) else ""),
        ),
        mean_nfe=nfe,
        versions={"odefend": VERSION, "torch": torch.__version__, "python": platform.python_version()},
    )
