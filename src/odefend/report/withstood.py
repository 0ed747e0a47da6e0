"""A figure of what defenses withstand, beside noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from odefend.intervals import Interval
from odefend.report.drawing import GREY, ORANGE, RED, panelled, svg


@dataclass(frozen=True)
class Withstood:
    """A defense in a figure: accuracy under attacks that know nothing of it, under all attacks, and under all attacks on noise of
    the same dose and cost."""

    label: str
    unknowing: Interval
    worst: Interval
    noise: Interval | None = None


def withstood(groups: Mapping[str, Sequence[Withstood]]) -> str:
    """Accuracy under attack by defense, a panel for each net; from top to bottom in the order given."""
    rows, columns = max(map(len, groups.values())), 3 if len(groups) > 1 else 1
    figure, panels = panelled(4.6 * len(groups) + 1.2, 0.36 * rows + 1.2 + 0.9 / columns, len(groups))
    for axes, (title, found) in zip(panels, groups.items(), strict=True):
        heights = rows - 1 - np.arange(len(found))
        kinds = (
            ("unknowing", GREY, "o", 0.0, "attacks that know nothing of it"),
            ("worst", RED, "D", 0.0, "all attacks"),
            ("noise", ORANGE, "s", -0.24, "all attacks, noise of equal dose"),
        )
        for kind, color, marker, shift, label in kinds:
            shown = [(y + shift, getattr(one, kind)) for y, one in zip(heights, found, strict=True)]
            shown = [(y, value) for y, value in shown if value is not None and value.n]
            if not shown:
                continue
            values = np.array([[value.value, value.low, value.high] for _, value in shown]) * 100
            y = [at for at, _ in shown]
            axes.errorbar(
                values[:, 0],
                y,
                xerr=np.abs(values[:, 1:].T - values[:, 0]),
                fmt=marker,
                color=color,
                markersize=4.5,
                elinewidth=1,
                label=label,
            )
        axes.set(yticks=heights, yticklabels=[one.label for one in found], xlim=(-3, 103), title=title)
        axes.set_ylim(-0.7, rows - 0.3)
        axes.set_xlabel("right under attack, %")
        axes.grid(visible=False, axis="y")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    return svg(figure, "What defenses withstand")
