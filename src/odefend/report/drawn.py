"""The figures of an experiment, from its rows, as SVG text."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from odefend.errors import InvalidInput
from odefend.experiments.expand import several
from odefend.experiments.parts import FigurePart, Line
from odefend.intervals import Interval
from odefend.metrics.detection import acceptance
from odefend.metrics.measures import PerImage, scores
from odefend.metrics.rows import Rows
from odefend.report.cells import metric_of, wanted
from odefend.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, legend, line, panelled, svg
from odefend.report.filled import filled_line, said_lines, shared

COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY, "#6fa3d8", "#b3cfec")
SPREAD = 30
"""How many times the least the largest number along an axis is, from where on the axis is logarithmic."""

BANDS = 5
"""Curves with bands of intervals, at most: more would hide each other."""

PUBLISHED: Mapping[str, Any] = {"linestyle": ":", "marker": "s", "markersize": 5, "markerfacecolor": "white"}
"""How numbers in print are drawn beside the measured ones."""

WORDS = {
    "tolerance": "tolerance of the judge",
    "attacked_at": "tolerance under attack",
    "epsilon": "radius epsilon",
    "scale": "s: the adversarial perturbation times this",
    "sigma": "sigma of the input noise",
    "radius": "L2 radius",
}
"""What axes are called."""


def figure(part: FigurePart, rows: Rows) -> str:
    """One figure, drawn."""
    return KINDS[part.kind](part, rows)


def lines(part: FigurePart, rows: Rows) -> str:
    """A curve for each line, with its band of intervals, over the values that its rows have along the axis."""
    drawing, (axes,) = panelled(7.2, 3.6)
    shown: list[float] = []
    for one, color in zip(part.lines, _colors(part.lines), strict=True):
        at, values = curve(part, one, rows)
        line(axes, at, values, color, one.label, one.dash, band=len(part.lines) <= BANDS)
        if one.published:
            axes.plot(
                [where for where, _ in one.published],
                [100 * share for _, share in one.published],
                **PUBLISHED,
                color=color,
            )
        shown += at
    percent = all(metric_of(part.where, one).show == "percent" for one in part.lines)
    axes.set(xlabel=WORDS.get(part.x, part.x), ylabel=part.y + (", %" if percent and part.y else ""))
    if shown and min(shown) > 0 and max(shown) > SPREAD * min(shown):
        axes.set_xscale("log")
    if percent:
        axes.set_ylim(-3, 103)
    legend(axes, fontsize=9)
    return svg(drawing, part.title)


def _colors(shown: Sequence[Line]) -> list[str]:
    """A color for each curve: of many, shades in their order for those that are drawn through, which are compared to the others."""
    if len(shown) <= BANDS:
        return list(islice(cycle(COLORS), len(shown)))
    through = [one for one in shown if one.dash == "-"]
    shades = dict(zip(map(id, through), mpl.colormaps["viridis"](np.linspace(0, 0.9, len(through))), strict=True))
    others = cycle((ORANGE, RED, GREY))
    return [to_hex(shades[id(one)]) if id(one) in shades else next(others) for one in shown]


def curve(part: FigurePart, one: Line, rows: Rows) -> tuple[list[float], list[Interval]]:
    """The points of a line: where it has rows, and what its metric is there."""
    mine, metric = rows.where(wanted(part.where, one)), metric_of(part.where, one)
    at = list(several(getattr(one, part.x, None))) or axis(mine, part.x)
    percent = metric.show == "percent"
    parts = [mine.where({part.x: where}) for where in at]
    other = None if one.other is None else rows.where(wanted(part.where, one.other))
    found = [metric.of(some) if other is None else metric.beside(some, other) for some in parts]
    return at, found if percent else [_hundredth(value) for value in found]


def axis(rows: Rows, name: str) -> list[float]:
    """The values that rows have along an axis."""
    found = pl.concat([part.to_frame() for part in rows.column(name)]).to_series()
    return found.drop_nulls().unique().sort().to_list()


def _hundredth(value: Interval) -> Interval:
    # Curves are drawn in percent.
    return Interval(value.value / 100, value.low / 100, value.high / 100, value.n)


def bars(part: FigurePart, rows: Rows) -> str:
    """A horizontal bar with its interval for each line."""
    drawing, (axes,) = panelled(7.2, 0.42 * len(part.lines) + 0.9)
    heights = np.arange(len(part.lines))[::-1]
    for one, height, color in zip(part.lines, heights, cycle(COLORS), strict=False):
        found = metric_of(part.where, one).of(rows.where(wanted(part.where, one)))
        if found.n:
            _bar(axes, float(height), found, color)
    axes.set(yticks=heights, yticklabels=[one.label for one in part.lines], xlim=(0, 103), xlabel=part.y + ", %")
    axes.grid(visible=False, axis="y")
    return svg(drawing, part.title)


def _bar(axes: Axes, height: float, found: Interval, color: str) -> None:
    axes.barh(height, 100 * found.value, color=color, height=0.6)
    axes.errorbar(
        100 * found.value,
        height,
        xerr=[[100 * (found.value - found.low)], [100 * (found.high - found.value)]],
        color="black",
        elinewidth=1,
    )


def dots(part: FigurePart, rows: Rows) -> str:
    """The numbers of a table, its rows from top to bottom: a mark with its interval for each column."""
    assert part.table is not None, part.title
    lines = said_lines(part.table)
    rows = shared(part.table, rows, lines)
    found = [(labels, filled_line(part.table, line, rows)) for line, labels in lines]
    drawing, (axes,) = panelled(7.2, 0.36 * len(found) + 1.2)
    heights = np.arange(len(found))[::-1]
    marks = zip(part.table.columns, cycle("oDs^v"), (GREY, RED, ORANGE, BLUE, GREEN), strict=False)
    for number, (column, marker, color) in enumerate(marks):
        values = [cells[number].value for _, cells in found]
        shown = [(y, one) for y, one in zip(heights, values, strict=True) if one is not None and one.n]
        if shown:
            at, low, high = (
                100 * np.array([getattr(one, side) for _, one in shown]) for side in ("value", "low", "high")
            )
            y, style = [y - 0.12 * number for y, _ in shown], {"fmt": marker, "markersize": 4.5, "elinewidth": 1}
            axes.errorbar(at, y, xerr=[abs(at - low), abs(high - at)], color=color, label=column.head, **style)
    axes.set(yticks=heights, yticklabels=[labels[0] for labels, _ in found], xlim=(-3, 103), xlabel=part.y + ", %")
    axes.grid(visible=False, axis="y")
    legend(axes, fontsize=9)
    return svg(drawing, part.title)


def roc(part: FigurePart, rows: Rows) -> str:
    """Attacked images accepted against clean images accepted, one panel for each scale."""
    scales = axis(rows.where(wanted(part.where)), "scale") if part.panels else [1.0]
    drawing, panels = panelled(3.1 * len(scales) + 1.9, 3.3, len(scales))
    for axes, scale in zip(panels, scales, strict=True):
        for one, color in zip(part.lines, cycle(COLORS), strict=False):
            clean, attacked = scores(rows.where(wanted(part.where, one)), scale)
            if len(clean) and len(attacked):
                x, y = acceptance(clean, attacked)
                few = len(x) <= 30
                style = {"marker": "o" if few else "", "linestyle": "-" if few else "--", "markersize": 3}
                axes.plot(100 * x, 100 * y, color=color, label=one.label, **style)
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
        axes.set(xlabel="attacked images accepted, %", title=f"s = {scale:g}", xlim=(-3, 103), ylim=(-3, 103))
    panels[0].set_ylabel("clean images accepted, %")
    legend(panels[-1], fontsize=8.5)
    return svg(drawing, part.title)


def heat(part: FigurePart, rows: Rows) -> str:
    """A metric by the tolerance of attack and that of test."""
    mine, metric = rows.where(wanted(part.where)), metric_of(part.where)
    attacks, tests = axis(mine, "attacked_at"), axis(mine.judging(), "tolerance")
    drawing, (axes,) = panelled(1.1 * len(tests) + 1.4, 0.9 * len(attacks) + 1.2)
    cells = [[metric.of(mine.where({"attacked_at": a, "tolerance": t})) for t in tests] for a in attacks]
    axes.imshow([[cell.value for cell in row] for row in cells], vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.grid(visible=False)
    for row, column in np.ndindex(len(attacks), len(tests)):
        cell = cells[row][column]
        told = f"{100 * cell.value:.0f} %\n[{100 * cell.low:.0f}, {100 * cell.high:.0f}]" if cell.n else "-"
        color = "white" if cell.value > 0.6 else "black"
        axes.text(column, row, told, ha="center", va="center", fontsize=9, color=color)
    axes.set(
        xticks=range(len(tests)),
        yticks=range(len(attacks)),
        xticklabels=[f"{one:g}" for one in tests],
        yticklabels=[f"{one:g}" for one in attacks],
        xlabel="judged at tolerance",
        ylabel="attacked at tolerance",
    )
    return svg(drawing, part.title)


def histogram(part: FigurePart, rows: Rows) -> str:
    """The share of images by the number that each line's metric gives them."""
    drawing, (axes,) = panelled(7.2, 3.4)
    found = {one.label: _each(part, one, rows) for one in part.lines}
    finite = [values.filter(values.is_finite()).to_numpy() for values in found.values()]
    low, high = (function([function(v) for v in finite if len(v)] or [0]) for function in (min, max))
    for (label, _), values, color in zip(found.items(), finite, cycle(COLORS), strict=False):
        weights = np.full(len(values), 100 / max(1, len(values)))
        bins = np.linspace(low, high, (part.bins or 20) + 1).tolist()
        axes.hist(values, bins=bins, weights=weights, histtype="stepfilled", alpha=0.35, color=color, label=label)
    axes.set(xlabel=part.y, ylabel="images, %")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    return svg(drawing, part.title)


def _each(part: FigurePart, one: Line, rows: Rows) -> pl.Series:
    metric = metric_of(part.where, one)
    if not isinstance(metric, PerImage):
        raise InvalidInput(f"{part.title}: expected a metric of single images for a histogram, got {one.metric!r}.")
    return metric.each(rows.where(wanted(part.where, one)))["value"]


def trajectories(part: FigurePart, rows: Rows) -> str:
    """How far the states of attacked images drift from their originals' while the ODE is solved: three measures, a line for each
    tolerance, means over the images that fooled the model."""
    measures = (
        ("raw", "distance of h(t)"),
        ("head_features", "distance of ReLU(GN(h(t)))"),
        ("cosine", "1 - cosine of h(t)"),
    )
    drawing, panels = panelled(9.6, 3.1, 3)
    traced = rows.where(wanted(part.where)).traced.filter("attack_success")
    tolerances = sorted(traced["rtol"].unique().to_list())
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, max(1, len(tolerances))))
    for axes, (column, label) in zip(panels, measures, strict=True):
        for tolerance, shade in zip(tolerances, shades, strict=True):
            mine = traced.filter(pl.col("rtol") == tolerance)
            paths = np.array(mine[column].to_list())
            axes.plot(mine["time"][0].to_list(), paths.mean(0), color=shade, label=f"{tolerance:g} ({mine.height})")
        axes.set(xlabel="t", ylabel=label)
        axes.set_ylim(bottom=0)
    if tolerances:
        panels[-1].legend(
            loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8.5, title="tolerance (images)"
        )
    return svg(drawing, part.title)


KINDS: Mapping[str, Callable[[FigurePart, Rows], str]] = {
    "lines": lines,
    "bars": bars,
    "dots": dots,
    "roc": roc,
    "heat": heat,
    "histogram": histogram,
    "trajectories": trajectories,
}
"""Kinds of figures."""
