"""Verification: stored adversarial images are shown to the nets again, and the answers compared with the rows."""

from dataclasses import dataclass

import polars as pl
import torch

from odefend.errors import InvalidInput
from odefend.evaluation.ledger import Ledger
from odefend.evaluation.views import View, opened_net
from odefend.models import weights_digest


@dataclass(frozen=True)
class Verified:
    """How many rows were compared, and those that the nets contradict: (key of the shard, image)."""

    compared: int
    contradicted: tuple[tuple[str, str], ...]


@torch.no_grad()
def verify(ledger: Ledger, sample: int = 100, seed: int = 0) -> Verified:
    """Judge a random sample of crafted images anew, at the tolerance they were made at.

    Left out: images that an attack had to slip past a detector, or made against random tolerances, whose success is more than
    a wrong answer, and those that were wrong before. Raises InvalidInput where a net has other weights than the rows say.
    """
    rows = ledger.read("crafted").drop("experiment", "trial").unique(["key", "image"], maintain_order=True)
    rows = rows.filter(~pl.col("initially_wrong") & pl.col("guard").is_null() & pl.col("source_draws").is_null())
    rows = rows.sample(min(sample, rows.height), seed=seed).sort("key", "position")
    wrong = []
    for (key,), part in rows.group_by("key", maintain_order=True):
        first = part.row(0, named=True)
        if weights_digest(opened_net(first["net"])) != first["net_digest"]:
            raise InvalidInput(
                f"{first['net']}: expected the weights {first['net_digest']} that the rows name, got others."
            )
        how = {name: first[name] for name in ("gradient", "end", "coupling", "max_steps") if first[name] is not None}
        net = View(first["net"], first["rtol"], **how).open()
        images = ledger.read_images(str(key))
        labels = torch.tensor(part["label"].to_list())
        # The whole shard, as it was judged then: a batch of one may differ in the last bits.
        answers = net.predict(images)
        at = part["position"].to_torch()
        said, answered = answers.labels[at], answers.answered[at]
        targets = part["target"].to_list()
        reached = [
            well and (answer == target if target is not None else answer != label)
            for well, answer, target, label in zip(
                answered.tolist(), said.tolist(), targets, labels.tolist(), strict=True
            )
        ]
        wrong += [
            (str(key), image)
            for image, now, then in zip(part["image"], reached, part["success"], strict=True)
            if now != then
        ]
    return Verified(rows.height, tuple(wrong))
