"""How figures look, and their way into a page: style, axes, curves with bands, SVG."""

import hashlib
import html
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from odefend.intervals import Interval

BLUE, ORANGE, GREEN, RED, GREY, PURPLE = "#2563a8", "#d9730d", "#2e8b57", "#c23b3b", "#8a8f98", "#7a4fa3"

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a8f98",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.fonttype": "none",
    "svg.hashsalt": "odefend",
    "figure.constrained_layout.use": True,
}


def svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element that scales with the page and tells screen readers its title."""
    ticks = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for label in axis.get_ticklabels(which="both")
    }
    for words in set(figure.findobj(Text)) - ticks:
        words.set_parse_math(False)  # type: ignore[attr-defined]  # names may hold dollar signs
    text = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    body = text.getvalue()
    body = body[body.index("<svg") :]
    # Ids are only unique within a figure; a page has several.
    prefix = re.sub(r"\W", "", title)[:24] + hashlib.sha256(body.encode()).hexdigest()[:6]
    body = re.sub(r'(id="|href="#|url\(#)', lambda match: f"{match[1]}{prefix}-", body)
    return body.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)


def panelled(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches, and its panels from left to right."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        return figure, list(np.atleast_1d(np.asarray(figure.subplots(1, columns))))


def line(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[Interval],
    color: str,
    label: str,
    dash: str = "-",
    band: bool = True,
) -> None:
    """A curve in percent, with a `band` of its confidence intervals; points without data are left out."""
    kept = [(at, value) for at, value in zip(x, values, strict=True) if value.n]
    if not kept:
        return
    at = [one for one, _ in kept]
    axes.plot(
        at, [100 * v.value for _, v in kept], color=color, linestyle=dash, marker="o", markersize=3.5, label=label
    )
    if not band:
        return
    axes.fill_between(
        at, [100 * v.low for _, v in kept], [100 * v.high for _, v in kept], color=color, alpha=0.13, linewidth=0
    )


def legend(axes: Axes, **style: Any) -> None:
    """What the curves are, on the right of them; nothing where there is none."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, **style)
