"""Verification: stored adversarial images are shown to the nets again, and the answers compared with the rows."""

import json
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

from odefend.attacks.problem import padded_batches
from odefend.defenses import InputNoise, RandomizedNet
from odefend.errors import InvalidInput
from odefend.evaluation.ledger import Ledger, canonical
from odefend.evaluation.views import Defended, View, opened_net
from odefend.models import Classifier, ODENet, Prediction, join, weights_digest
from odefend.tensors import Images

TOLD = 5
"""The first version of the ledger's columns that tells all of how a net was asked: also its step, draws and seed."""


@dataclass(frozen=True)
class Verified:
    """How many rows were compared, those that the nets contradict, as (key of the shard, image), and how many rows were left out
    since older columns do not tell how they were made."""

    compared: int
    contradicted: tuple[tuple[str, str], ...]
    left_out: int = 0


@torch.no_grad()
def verify(ledger: Ledger, sample: int = 100, seed: int = 0) -> Verified:
    """Show stored images again, by random samples of so many `crafted` and so many `judged` rows, to the nets that the rows tell:
    solved as then, behind their defenses, under the same draws.

    A crafted row must have the same success (and in a ball the same status), a judged one the same answer and status. Left out
    are images that an attack had to slip past a detector, those that were wrong before, and images that are not stored: clean
    and pushed ones. Raises InvalidInput where a net has other weights than the rows say.
    """
    crafted = ledger.rows("crafted").filter(~pl.col("initially_wrong") & pl.col("guard").is_null())
    judged = ledger.rows("judged").with_columns(place=pl.int_range(pl.len()).over("key"))
    judged = judged.filter(pl.col("crafted").is_not_null() & (pl.col("scale") == 1.0))
    tables = (crafted.rename({"position": "place"}), judged)
    told = [rows.filter(pl.col("schema_version") >= TOLD) for rows in tables]
    chosen = [rows.sample(min(sample, rows.height), seed=seed).sort("key", "place") for rows in told]
    wrong: list[tuple[str, str]] = []
    for rows, contradicted in zip(chosen, (_crafted, _judged), strict=True):
        for (key,), part in rows.group_by("key", maintain_order=True):
            wrong += [(str(key), image) for image in contradicted(ledger, str(key), part)]
    left_out = sum(rows.height for rows in tables) - sum(rows.height for rows in told)
    return Verified(sum(rows.height for rows in chosen), tuple(wrong), left_out)


def _crafted(ledger: Ledger, key: str, part: pl.DataFrame) -> list[str]:
    """Which images of these rows of one shard the attacked net answers otherwise."""
    whole = ledger.read_shard("crafted", key)
    first, ids = whole.row(0, named=True), whole["image"].to_list()
    said = _answers(_view(first, first["defense"], first["draws"] or 0).open(ids), ledger.read_images(key))
    if first["target"] is None:
        success = said.fooled(whole["label"].to_torch())
    else:
        success = said.answered & (said.labels == first["target"])
    now = pl.DataFrame({"place": range(len(ids)), "now": success.tolist(), "ended": said.status.tolist()})
    # A search of smallest norm that failed gave the clean image back, beside the status of what it had tried.
    ended = pl.col("epsilon").is_null() | (pl.col("status") == pl.col("ended"))
    both = part.join(now.cast({"place": pl.Int64}), on="place", how="left")
    return both.filter((pl.col("success") != pl.col("now")) | ~ended)["image"].to_list()


def _judged(ledger: Ledger, key: str, part: pl.DataFrame) -> list[str]:
    """Which images of these rows of one shard the judge answers otherwise."""
    whole, wrong = ledger.read_shard("judged", key), list[str]()
    images = ledger.read_images(whole["crafted"][0])
    # A shard has all images under its first condition, then all under the next, and so on.
    for (number,), some in part.group_by(pl.col("place") // len(images), maintain_order=True):
        shown = whole.slice(int(str(number)) * len(images), len(images))
        said = _answers(*_as_judged(shown, images))
        at = some["place"].to_torch() % len(images)
        same = (said.labels[at] == some["prediction"].to_torch()) & (said.status[at] == some["status"].to_torch())
        wrong += [image for image, agrees in zip(some["image"], same.tolist(), strict=True) if not agrees]
    return wrong


def _as_judged(shown: pl.DataFrame, images: Images) -> tuple[Classifier, Images]:
    """The net, and what it saw, of rows of one condition: all images of a shard."""
    first, ids = shown.row(0, named=True), shown["image"].to_list()
    net = _view(first, first["settings"]).open()
    if first["settings"] is not None:
        return (net.draw(ids, first["draw"]) if isinstance(net, RandomizedNet) else net), images
    if isinstance(net, ODENet):
        net = net.at(shown["rtol"].to_torch())
    if first["sigma"]:
        images = InputNoise(first["sigma"], first["seed"]).add(images, ids, first["draw"])
    return net, images


def _view(row: dict[str, Any], defense: str | None, draws: int = 0) -> View:
    """The net as a row tells it. Raises InvalidInput where its weights are others."""
    if (found := weights_digest(opened_net(row["net"]))) != row["net_digest"]:
        raise InvalidInput(f"{row['net']}: expected the weights {row['net_digest']} that the rows name, got {found}.")
    how = {name: row[name] for name in ("gradient", "end", "coupling", "max_steps", "method", "step")}
    how = {name: value for name, value in how.items() if value is not None}
    return View(row["net"], row["rtol"], defense=_defended(defense), draws=draws, **how)


def _defended(text: str | None) -> Defended | None:
    """A defense from its text in rows."""
    if text is None:
        return None
    settings = json.loads(text)
    return Defended(settings.pop("name"), canonical(settings))


def _answers(net: Classifier, images: Images) -> Prediction:
    batches = padded_batches(torch.arange(len(images)), images)
    return join([net.rows(rows).predict(batch).first(size) for rows, batch, size in batches])
