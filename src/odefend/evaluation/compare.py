"""Two sets of rows side by side, paired image by image."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
from scipy.stats import binomtest

from odefend import intervals
from odefend.evaluation.robustness import attacked, lost
from odefend.intervals import Interval


@dataclass(frozen=True)
class Comparison:
    """A share under two conditions on the same images: both, their difference with its interval, and the p-value of an exact
    McNemar test that neither is larger."""

    what: str
    first: Interval
    second: Interval
    difference: Interval
    p_value: float


def compare(first: tuple[pl.DataFrame, pl.DataFrame], second: tuple[pl.DataFrame, pl.DataFrame]) -> list[Comparison]:
    """(crafted, judged) of two evaluations, each of one net: clean accuracy at each tolerance, and the share of images that
    withstand each attack, where both have them. Only images that both judged, and that both nets had right, count; what a solver
    gave up does not withstand."""
    found = [
        _paired(f"clean accuracy{_at(at)}", one, other, "correct")
        for at, one, other in _common(_clean(first[1]), _clean(second[1]), ["rtol"])
    ]
    made = [attacked(side[0]).with_columns(stands=~lost()) for side in (first, second)]
    keys = ["trial", "epsilon", "rtol", "attack", "norm", "settings"]
    found += [
        _paired(f"withstands {name}{'' if radius is None else f', radius {radius:g}'}{_at(at)}", one, other, "stands")
        for (name, radius, at, *_), one, other in _grouped(made[0], made[1], keys)
    ]
    return [one for one in found if one.difference.n]


def _clean(judged: pl.DataFrame) -> pl.DataFrame:
    return judged.filter((pl.col("experiment") == "clean") & (pl.col("kind") == "clean"))


def _at(tolerance: float | None) -> str:
    return "" if tolerance is None else f" at {tolerance:g}"


def _common(
    one: pl.DataFrame, other: pl.DataFrame, keys: list[str]
) -> Iterator[tuple[float | None, pl.DataFrame, pl.DataFrame]]:
    for key, left, right in _grouped(one, other, keys):
        yield key[0], left, right


def _grouped(
    one: pl.DataFrame, other: pl.DataFrame, keys: list[str]
) -> Iterator[tuple[tuple, pl.DataFrame, pl.DataFrame]]:  # type: ignore[type-arg]
    sides = [frame.partition_by(keys, as_dict=True, maintain_order=True) for frame in (one, other)]
    for key, part in sides[0].items():
        if key in sides[1]:
            yield key, part, sides[1][key]


def _paired(what: str, one: pl.DataFrame, other: pl.DataFrame, column: str) -> Comparison:
    both = (
        one.select("image", column)
        .unique("image")
        .join(other.select("image", column).unique("image"), on="image", suffix="_other")
    )
    left, right = (both[name].to_numpy().astype(float) for name in (column, f"{column}_other"))
    only = int((left > right).sum()), int((left < right).sum())
    p_value = float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0
    first, second = (intervals.rate(int(side.sum()), len(side)) for side in (left, right))
    return Comparison(what, first, second, intervals.mean_difference(left, right), p_value)
