"""Cells: a metric of the rows that a part of an experiment names, as an interval and as text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from odefend.errors import unknown
from odefend.experiments.parts import Cell, Column, Row
from odefend.intervals import Interval
from odefend.metrics import METRICS
from odefend.metrics.measures import Computed, Metric
from odefend.metrics.rows import Rows

FILTERS = tuple(name for name in Cell.model_fields if name != "metric")


def wanted(*cells: Cell) -> dict[str, Any]:
    """What several cells ask for together; the later ones decide."""
    return {name: value for cell in cells for name in FILTERS if (value := getattr(cell, name)) is not None}


def metric_of(*cells: Cell) -> Metric:
    """The metric that the last of them names: by its name, itself, or a function of rows."""
    name = next((cell.metric for cell in reversed(cells) if cell.metric), "")
    if isinstance(name, Metric):
        return name
    if callable(name):
        return Computed(cast(Callable[[Rows], Interval], name))
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


@dataclass(frozen=True)
class Filled:
    """A cell: its text, and its number where it has one."""

    text: str
    value: Interval | None = None


def fill(rows: Rows, column: Column, where: Cell, row: Row) -> Filled:
    """A cell of a table, of which all cells have `where` in common; without text where its row is set beside nothing or
    itself."""
    line = row.other if column.of == "other" else row
    against = "other" if column.of == "both" else column.minus or column.over
    if line is None or (against == "other" and row.other is None):
        return Filled("")
    around = (where, line, column)
    metric, here = metric_of(*around), rows.where(wanted(*around))
    if against is None:
        return _shown(metric.of(here), column, metric.show)
    other = row.other if against == "other" else against
    beside = wanted(where, *([] if against == "other" else [line]), column, *([other] if other else []))
    if beside == wanted(*around):
        return Filled("")
    there = rows.where(beside)
    if column.of == "both":
        return _shown(metric.beside(here, there), column, metric.show)
    if column.minus is not None:
        return _shown(metric.minus(here, there), column, "points")
    return _shown(metric.over(here, there), column, "3")


def _shown(value: Interval, column: Column, usual: str = "percent") -> Filled:
    return Filled(text(value, column.show or usual), value)


def text(value: Interval, how: str) -> str:
    """An interval as percent, points, change, plain (no interval), or with so many digits; "-" without data."""
    if not value.n:
        return "-"
    if how.isdigit():
        return value.text(int(how))
    shows: Mapping[str, Callable[[Interval], str]] = {
        "percent": lambda one: one.percent,
        "points": lambda one: f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]",
        "signed": lambda one: f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]",
        "change": lambda one: (
            f"{100 * one.value - 100:+.1f} % [{100 * one.low - 100:+.1f}, {100 * one.high - 100:+.1f}]"
        ),
        "n": lambda one: str(one.n),
        "plain": lambda one: f"{one.value:,.0f}",
    }
    if how not in shows:
        raise unknown("way to show a number", how, [*shows, "3"])
    return shows[how](value)
