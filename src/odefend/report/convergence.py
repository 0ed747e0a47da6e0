"""How an attack came to its result."""

import numpy as np
import polars as pl
from matplotlib.ticker import MaxNLocator

from odefend import intervals
from odefend.metrics.rows import attacked
from odefend.report.drawing import BLUE, GREY, ORANGE, line, panelled, svg


def convergence(crafted: pl.DataFrame) -> str:
    """How an attack came to its result: images broken, and for a minimum-norm attack how near, after each outer step."""
    rows = attacked(crafted)
    ball = crafted["epsilon"][0] is not None
    steps = (
        np.array(rows["history"].to_list(), dtype=float).reshape(rows.height, -1) if rows.height else np.empty((0, 0))
    )
    figure, axes = panelled(7.2, 3.0, 1 if ball or not steps.size else 2)
    if not steps.size:
        why = "this attack tells nothing of its way" if rows.height else "no image was right before the attack"
        axes[0].text(0.5, 0.5, why, ha="center", va="center", color=GREY)
        axes[0].set_axis_off()
        return svg(figure, "Convergence")
    at = np.arange(1, steps.shape[1] + 1)
    found = [intervals.rate(int(np.isfinite(column).sum()), rows.height) for column in steps.T]
    line(axes[0], at.tolist(), found, BLUE, "broken")
    axes[0].set(xlabel="outer step", ylabel="images broken, %", ylim=(-2, 102), title="Broken so far")
    if not ball and np.isfinite(steps[:, -1]).any():
        # Of the images that fall in the end, so that a late success does not look like a longer way.
        fallen = steps[np.isfinite(steps[:, -1])]
        near = [float(np.median(np.where(np.isfinite(column), column, np.inf))) for column in fallen.T]
        axes[1].plot(at, [value if np.isfinite(value) else np.nan for value in near], color=ORANGE, marker="o")
        axes[1].set(xlabel="outer step", ylabel=f"median {crafted['norm'][0]} distance", title="Nearest so far")
        axes[1].set_ylim(0, 1.15 * max((value for value in near if np.isfinite(value)), default=1.0))
    for one in axes:
        one.set_xlim(0.8, steps.shape[1] + 0.2)
        one.xaxis.set_major_locator(MaxNLocator(integer=True))
    return svg(figure, "Convergence")
