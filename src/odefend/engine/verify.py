"""Verification: stored adversarial images are shown to the models again, and the answers compared with the rows."""

from dataclasses import dataclass

import polars as pl
import torch

from odefend.attacks.problem import padded_batches
from odefend.defenses import RandomizedNet
from odefend.engine.specs import ModelSpec
from odefend.errors import InvalidInput
from odefend.ledger.storage import Ledger
from odefend.models import Classifier, Prediction, join, weights_digest
from odefend.tensors import Images


@dataclass(frozen=True)
class Verified:
    """How many rows were compared, those that the models contradict, as (key of the shard, image), and how many rows were left out
    since older columns do not tell how they were made."""

    compared: int
    contradicted: tuple[tuple[str, str], ...]
    left_out: int = 0


@torch.no_grad()
def verify(ledger: Ledger, sample: int = 100, seed: int = 0) -> Verified:
    """Show stored images again, by random samples of so many `crafted` and so many `judged` rows, to the models that the rows tell:
    solved as then, behind their defenses, under the same draws.

    A crafted row must have the same success (and in a ball the same status), a judged one the same answer and status. Left out
    are images that an attack had to slip past a detector, those that were wrong before, and images that are not stored: clean
    ones, and those that were scaled, rescaled or rounded. Raises InvalidInput where a net has other weights than the rows say.
    """
    crafted = ledger.rows("crafted").filter(~pl.col("initially_wrong") & pl.col("guard").is_null())
    judged = ledger.rows("judged").with_columns(place=pl.int_range(pl.len()).over("key"))
    judged = judged.filter(
        pl.col("crafted").is_not_null()
        & (pl.col("scale") == 1.0)
        & pl.col("to_epsilon").is_null()
        & ~pl.col("rounded").fill_null(value=False)
    )
    tables = (crafted.rename({"position": "place"}), judged)
    told = [rows.filter(pl.col("model_spec").is_not_null()) for rows in tables]
    chosen = [rows.sample(min(sample, rows.height), seed=seed).sort("key", "place") for rows in told]
    wrong: list[tuple[str, str]] = []
    for rows, contradicted in zip(chosen, (_crafted, _judged), strict=True):
        for (key,), part in rows.group_by("key", maintain_order=True):
            wrong += [(str(key), image) for image in contradicted(ledger, str(key), part)]
    left_out = sum(rows.height for rows in tables) - sum(rows.height for rows in told)
    return Verified(sum(rows.height for rows in chosen), tuple(wrong), left_out)


def _crafted(ledger: Ledger, key: str, part: pl.DataFrame) -> list[str]:
    """Which images of these rows of one shard the attacked model answers otherwise."""
    whole = ledger.read_shard("crafted", key)
    ids, target = whole["image"].to_list(), whole["target"][0]
    said = _answers(_model(whole).open(ids), ledger.read_images(key))
    success = said.fooled(whole["label"].to_torch()) if target is None else said.answered & (said.labels == target)
    now = pl.DataFrame({"place": range(len(ids)), "now": success.tolist(), "ended": said.status.tolist()})
    # A search of smallest norm that failed gave the clean image back, beside the status of what it had tried.
    ended = pl.col("epsilon").is_null() | (pl.col("status") == pl.col("ended"))
    both = part.join(now.cast({"place": pl.Int64}), on="place", how="left")
    return both.filter((pl.col("success") != pl.col("now")) | ~ended)["image"].to_list()


def _judged(ledger: Ledger, key: str, part: pl.DataFrame) -> list[str]:
    """Which images of these rows of one shard the model answers otherwise."""
    whole, wrong = ledger.read_shard("judged", key), list[str]()
    images, net = ledger.read_images(whole["crafted"][0]), _model(whole).open()
    # A shard has all images at its first scale and draw, then all at the next, and so on.
    for (number,), some in part.group_by(pl.col("place") // len(images), maintain_order=True):
        shown = whole.slice(int(str(number)) * len(images), len(images))
        drawn = net.draw(shown["image"].to_list(), shown["draw"][0]) if isinstance(net, RandomizedNet) else net
        said = _answers(drawn, images)
        at = some["place"].to_torch() % len(images)
        same = (said.labels[at] == some["prediction"].to_torch()) & (said.status[at] == some["status"].to_torch())
        wrong += [image for image, agrees in zip(some["image"], same.tolist(), strict=True) if not agrees]
    return wrong


def _model(rows: pl.DataFrame) -> ModelSpec:
    """The model that the rows of a shard tell of. Raises InvalidInput where its weights are others."""
    told = rows.row(0, named=True)
    model = ModelSpec.recorded(told["model_spec"])
    if (found := weights_digest(model.net_itself)) != told["net_digest"]:
        raise InvalidInput(f"{model.net}: expected the weights {told['net_digest']} that the rows name, got {found}.")
    return model


def _answers(net: Classifier, images: Images) -> Prediction:
    batches = padded_batches(torch.arange(len(images)), images)
    return join([net.rows(rows).predict(batch).first(size) for rows, batch, size in batches])
