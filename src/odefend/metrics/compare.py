"""Two experiments side by side, paired image by image."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import polars as pl
from scipy.stats import binomtest

from odefend import intervals
from odefend.intervals import Interval
from odefend.metrics.measures import METRICS, PerImage
from odefend.metrics.rows import Rows

Asked = Mapping[str, Any]
"""What a cell asks for, by column."""


@dataclass(frozen=True)
class Comparison:
    """A share under two conditions on the same images: both, their difference with its interval, and the p-value of an exact
    McNemar test that neither is larger."""

    what: str
    first: Interval
    second: Interval
    difference: Interval
    p_value: float


def compare(first: Rows, second: Rows, models: Iterable[tuple[str, str]]) -> list[Comparison]:
    """For each pair of models, one of each experiment: clean accuracy at each tolerance, and robust accuracy under each attack,
    where both have them. Only images that both judged or attacked count. A net without a solver stands beside every tolerance."""
    found = []
    for pair in models:
        name = pair[0] if pair[0] == pair[1] else f"{pair[0]} beside {pair[1]}"
        mine, theirs = (rows.where({"model": model}) for rows, model in zip((first, second), pair, strict=True))
        for (at, one), (_, other) in _matched(_tolerances(mine), _tolerances(theirs)):
            found.append(_paired(f"{name}: accuracy{_at(at)}", "accuracy", mine.where(one), theirs.where(other)))
        for (what, one), (_, other) in _matched(_attacks(mine), _attacks(theirs)):
            sides = mine.where(one), theirs.where(other)
            found.append(_paired(f"{name}: robust accuracy, {what}", "robust accuracy", *sides))
    return [one for one in found if one.difference.n]


def _tolerances(rows: Rows) -> list[tuple[float | None, Asked]]:
    clean = rows.judged.filter(pl.col("kind") == "clean")["rtol"].unique().sort()
    return [(at, {"tolerance": [at]}) for at in clean]


def _attacks(rows: Rows) -> list[tuple[str, Asked]]:
    """What each attack is called, and its cell."""
    made = rows.crafted.select("attack", "epsilon", "rtol").unique().sort("attack", "epsilon", "rtol")
    return [
        (
            f"{attack}{'' if radius is None else f' at radius {radius:g}'}",
            {"attack": attack, "epsilon": [radius], "attacked_at": [at], "tolerance": [at], "scale": 1.0},
        )
        for attack, radius, at in made.iter_rows()
    ]


def _matched(one: list[tuple[Any, Asked]], other: list[tuple[Any, Asked]]) -> Iterator[tuple[Any, Any]]:
    """Cells of both sides that ask the same, tolerances aside where either has none."""
    for left in one:
        for right in other:
            at = [cell["tolerance"][0] for _, cell in (left, right)]
            alike = {name: value for name, value in left[1].items() if name not in ("tolerance", "attacked_at")}
            same = all(right[1][name] == value for name, value in alike.items())
            if same and (None in at or at[0] == at[1]):
                yield left, right


def _at(tolerance: float | None) -> str:
    return "" if tolerance is None else f" at {tolerance:g}"


def _paired(what: str, metric: str, first: Rows, second: Rows) -> Comparison:
    each = cast(PerImage, METRICS[metric])
    both = each.each(first).join(each.each(second), on="image", suffix="_other").sort("image")
    left, right = both["value"].to_numpy(), both["value_other"].to_numpy()
    only = int((left > right).sum()), int((left < right).sum())
    p_value = float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0
    return Comparison(what, each.estimate(left), each.estimate(right), intervals.mean_difference(left, right), p_value)
