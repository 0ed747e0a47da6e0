"""Settings of a defense chosen by rows of validation images: what clean accuracy may cost, and which of the rest is most robust."""

import polars as pl

from odefend.engine import DefenseSpec
from odefend.errors import InvalidInput
from odefend.metrics.measures import METRICS
from odefend.metrics.rows import Rows

CHOOSING = ("white-box", "adaptive")
"""Roles of attackers by whom a defense may be chosen. Others, who do not know it, would choose what they know least of."""


def admissible(rows: Rows, candidates: str, reference: str, max_accuracy_drop: float) -> list[DefenseSpec]:
    """The defenses of the model `candidates` behind which clean accuracy is lower than that of `reference` by at most so much."""
    check_accuracy_drop(max_accuracy_drop)
    base, accuracy = rows.where({"model": reference}), METRICS["accuracy"]
    tried = {text: rows.where({"model": candidates, "defense": text}) for text in _defenses(rows, candidates)}
    return [
        DefenseSpec.read(text) for text, mine in tried.items() if accuracy.minus(base, mine).value <= max_accuracy_drop
    ]


def tuned(rows: Rows, candidates: str, reference: str, max_accuracy_drop: float) -> list[DefenseSpec]:
    """Of those that are `admissible` the one that is most robust to attacks that know it, of equals that of the highest clean
    accuracy; empty where none is admissible.

    Raises InvalidInput where one has not met an attack by who knows it (role white-box or adaptive): a choice by images that were
    made on another model, or without knowing the defense, is too kind.
    """
    found = []
    for spec in admissible(rows, candidates, reference, max_accuracy_drop):
        mine = rows.where({"defense": spec.text})
        knowing = mine.where({"role": CHOOSING})
        if not knowing.crafted.height:
            roles = sorted(mine.judged["role"].cast(pl.String).drop_nulls().unique())
            raise InvalidInput(
                f"tuned: expected attacks on {spec.text} of role white-box or adaptive, to choose by, got {roles or 'none'}. "
                "An attack that does not know a defense makes it look better than it is."
            )
        clean = METRICS["accuracy"].of(mine.where({"model": candidates})).value
        found.append((METRICS["robust accuracy"].of(knowing).value, clean, spec))
    return [max(found, key=lambda one: one[:2])[2]] if found else []


def check_accuracy_drop(share: float) -> None:
    """Raise InvalidInput for what is no share of clean images."""
    if not 0 <= share < 1:
        raise InvalidInput(f"max_accuracy_drop: expected a share of clean images in [0, 1), got {share}.")


def _defenses(rows: Rows, model: str) -> list[str]:
    found = rows.where({"model": model}).judged["defense"].cast(pl.String)
    return found.drop_nulls().unique().sort().to_list()
