"""Figures: pure functions of ledger rows, as SVG text to be set into a page."""

from collections.abc import Sequence
from itertools import cycle

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from odefend import intervals
from odefend.dose import Doses
from odefend.evaluation.controls import beside_noise, strongest
from odefend.evaluation.detection import acceptance, samples
from odefend.evaluation.robustness import accuracy, attacked, matrix_cells, recovered
from odefend.intervals import Interval
from odefend.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, STYLE, legend, line, panelled, svg


def accuracy_by_tolerance(
    judged: pl.DataFrame,
    net: str,
    tolerances: Sequence[float],
    doses: Doses | None,
    reference: float,
    attack: str,
) -> str:
    """Clean accuracy, and the attack's images won back at s = 1 and s = 1.1, by tolerance, beside dose-matched noise."""
    figure, (axes,) = panelled(7.2, 3.6)
    clean = judged.filter((pl.col("experiment") == "clean") & (pl.col("net") == net))
    found = judged.filter((pl.col("experiment") == "recovery") & (pl.col("net") == net))
    still = found.filter(pl.col("defense") == "tolerance")
    noise = found.filter((pl.col("defense") == "noise") & (pl.col("scale") == 1.0))
    line(axes, tolerances, [accuracy(clean.filter(pl.col("rtol") == t)) for t in tolerances], GREEN, "clean images")
    for scale, color, dash in ((1.0, BLUE, "-"), (1.1, PURPLE, "--")):
        rows = still.filter(pl.col("scale") == scale)
        line(
            axes,
            tolerances,
            [recovered(rows.filter(pl.col("rtol") == t)) for t in tolerances],
            color,
            f"{attack} images, s = {scale:g}",
            dash,
        )
    others = [t for t in tolerances if t != reference] if doses and noise.filter("attack_success").height else []
    plain = still.filter(pl.col("scale") == 1.0)
    line(
        axes,
        others,
        [beside_noise(plain.filter(pl.col("rtol") == t), noise, doses, t).recovered for t in others if doses],
        ORANGE,
        f"{attack} images, noise of equal dose",
        ":",
    )
    axes.axvline(reference, color=GREY, linewidth=1)
    axes.text(reference, 103, "attacked here", color=GREY, ha="center", fontsize=8.5)
    axes.set(
        xscale="log", xlabel="tolerance at which the images are judged", ylabel="classified rightly, %", ylim=(-3, 102)
    )
    legend(axes, fontsize=9)
    return svg(figure, "Accuracy by tolerance")


def pushed(
    judged: pl.DataFrame, net: str, tolerances: Sequence[float], scales: Sequence[float], reference: float
) -> str:
    """The s-curve: how much is won back as the attacker pushes further, by tolerance and under noise."""
    figure, (axes,) = panelled(7.2, 3.4)
    found = judged.filter((pl.col("experiment") == "recovery") & (pl.col("net") == net))
    still = found.filter(pl.col("defense") == "tolerance")
    others = [t for t in tolerances if t != reference]
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.9, len(others)))
    for tolerance, shade in zip(others, shades, strict=True):
        rows = still.filter(pl.col("rtol") == tolerance)
        values = [recovered(rows.filter(pl.col("scale") == s)).value * 100 for s in scales]
        axes.plot(scales, values, color=shade, marker="o", markersize=3, label=f"tolerance {tolerance:g}")
    noise = found.filter(pl.col("defense") == "noise")
    if noise.height:
        loudest = strongest(judged)
        loud = noise.filter(pl.col("sigma") == loudest)
        values = [recovered(loud.filter(pl.col("scale") == s)).value * 100 for s in scales]
        label = f"noise, sigma {loudest:.3f}"
        axes.plot(scales, values, color=ORANGE, linestyle=":", marker="o", markersize=3, label=label)
    axes.set(xlabel="s: the adversarial perturbation multiplied by this", ylabel="won back, %", ylim=(-3, 102))
    legend(axes, fontsize=9)
    return svg(figure, "The s-curve")


def heat(crafted: pl.DataFrame, judged: pl.DataFrame, grid: Sequence[float]) -> str:
    """Accuracy by tolerance of attack and of test."""
    figure, (axes,) = panelled(4.2, 3.4)
    cells = matrix_cells(crafted, judged, grid)
    values = np.array([[cells[attack, test].value for test in grid] for attack in grid])
    axes.imshow(values, vmin=0, vmax=1, cmap="Blues")
    axes.grid(False)
    for row, attack in enumerate(grid):
        for column, test in enumerate(grid):
            cell = cells[attack, test]
            axes.text(
                column,
                row,
                f"{100 * cell.value:.0f} %\n[{100 * cell.low:.0f}, {100 * cell.high:.0f}]",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if cell.value > 0.6 else "black",
            )
    ticks = range(len(grid))
    names = [f"{value:g}" for value in grid]
    axes.set(
        xticks=ticks,
        yticks=ticks,
        xticklabels=names,
        yticklabels=names,
        xlabel="judged at tolerance",
        ylabel="attacked at tolerance",
    )
    return svg(figure, "Accuracy by tolerance of attack and test")


def roc(scored: pl.DataFrame, names: Sequence[str], scales: Sequence[float]) -> str:
    """Attacked images accepted against clean images accepted, one panel per scale."""
    figure, panels = panelled(3.1 * len(scales) + 1.9, 3.3, len(scales))
    colors = [BLUE, "#6fa3d8", "#b3cfec", ORANGE, RED, GREEN, PURPLE, GREY]
    for axes, scale in zip(panels, scales, strict=True):
        for name, color in zip(names, colors, strict=False):
            clean, attacked_scores = samples(scored, name, scale)
            if not len(clean) or not len(attacked_scores):
                continue
            x, y = acceptance(clean, attacked_scores)
            many = len(x) > 30
            axes.plot(
                100 * x,
                100 * y,
                color=color,
                marker="" if many else "o",
                markersize=3,
                linestyle="--" if many else "-",
                label=name,
            )
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
        axes.set(xlabel="attacked images accepted, %", title=f"s = {scale:g}", xlim=(-3, 103), ylim=(-3, 103))
    panels[0].set_ylabel("clean images accepted, %")
    legend(panels[-1], fontsize=8.5)
    return svg(figure, "ROC of the detectors")


def epsilon_curve(crafted: pl.DataFrame, nets: Sequence[str], attack: str) -> str:
    """An attack's success by radius."""
    figure, (axes,) = panelled(6.4, 3.2)
    for net, color in zip(nets, (BLUE, ORANGE), strict=False):
        on_net = attacked(crafted.filter(pl.col("net") == net))
        tolerances = sorted(on_net["rtol"].unique(), key=lambda value: value or 0)
        several = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(tolerances)))
        for tolerance, shade in zip(tolerances, several, strict=True):
            rows = on_net.filter(pl.col("rtol").eq_missing(tolerance))
            epsilons = sorted(rows["epsilon"].unique().to_list())
            hits = [rows.filter(pl.col("epsilon") == e)["success"] for e in epsilons]
            label = net if tolerance is None else f"{net} at {tolerance:g}"
            shares = [intervals.rate(int(h.sum()), len(h)) for h in hits]
            line(axes, epsilons, shares, shade if len(tolerances) > 1 else color, label)
    axes.set(xlabel=f"{crafted['norm'][0]} radius epsilon", ylabel=f"{attack} success, %", ylim=(-3, 103))
    legend(axes)
    return svg(figure, f"{attack} success by radius")


def published(points: Sequence[tuple[str, float, float, Interval]], attack: str) -> str:
    """Success by tolerance, a colour for each line; each point: (line, tolerance, printed success, measured success)."""
    figure, (axes,) = panelled(6.4, 3.2)
    for name, color in zip(
        dict.fromkeys(name for name, *_ in points), cycle((BLUE, ORANGE, GREEN, RED, PURPLE)), strict=False
    ):
        mine = sorted((at, printed, measured) for other, at, printed, measured in points if other == name)
        at = [one for one, *_ in mine]
        line(axes, at, [one for *_, one in mine], color, name)
        printed = [100 * one for _, one, _ in mine]
        axes.plot(at, printed, color=color, linestyle=":", marker="s", markersize=5, markerfacecolor="white")
    axes.set(xscale="log", xlabel="tolerance attacked and judged at", ylabel="success, %", ylim=(-3, 103))
    legend(axes)
    return svg(figure, f"{attack} beside the published numbers")


def work(judged: pl.DataFrame, net: str, tolerances: Sequence[float]) -> str:
    """NFE of clean images by tolerance."""
    figure, (axes,) = panelled(5.6, 3.0)
    rows = judged.filter((pl.col("experiment") == "clean") & (pl.col("net") == net))
    each = [rows.filter(pl.col("rtol") == t)["nfe"].to_numpy() for t in tolerances]
    axes.plot(tolerances, [nfe.mean() for nfe in each], color=BLUE, marker="o", markersize=4)
    axes.fill_between(
        tolerances,
        [np.quantile(nfe, 0.05) for nfe in each],
        [np.quantile(nfe, 0.95) for nfe in each],
        color=BLUE,
        alpha=0.13,
        linewidth=0,
    )
    axes.set(xscale="log", yscale="log", xlabel="tolerance", ylabel="NFE per image (band: 5 to 95 %)")
    axes.set_yticks([20, 50, 100, 200], labels=["20", "50", "100", "200"])
    axes.set_yticks([], minor=True)
    return svg(figure, "NFE by tolerance")


def trajectories(traced: pl.DataFrame) -> str:
    """How far the states of attacked images drift from their originals' while the ODE is solved: three measures, a line per
    tolerance, means over the images that fooled the net."""
    measures = (
        ("raw", "distance of h(t)"),
        ("coded", "distance of ReLU(GN(h(t)))"),
        ("cosine", "1 - cosine of h(t)"),
    )
    figure, panels = panelled(9.6, 3.1, 3)
    rows = traced.filter("attack_success")
    tolerances = sorted(rows["rtol"].unique().to_list())
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, max(1, len(tolerances))))
    for axes, (column, label) in zip(panels, measures, strict=True):
        for tolerance, shade in zip(tolerances, shades, strict=True):
            part = rows.filter(pl.col("rtol") == tolerance)
            ways = np.array(part[column].to_list())
            axes.plot(part["time"][0].to_list(), ways.mean(0), color=shade, label=f"{tolerance:g} ({part.height})")
        axes.set(xlabel="t", ylabel=label)
        axes.set_ylim(bottom=0)
    legend(panels[-1], fontsize=8.5, title="tolerance (images)")
    return svg(figure, "Distance of the states over time")


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


def gallery(pictures: Sequence[tuple[np.ndarray, np.ndarray, str, str, np.ndarray]]) -> str:
    """Original, adversarial image, magnified difference, and the votes; each entry: (clean (height, width, channels),
    adversarial, what the net said of the first, and of the second, votes per class)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.45 * len(pictures) + 0.6, 5.4))
        grid = np.asarray(figure.subplots(4, len(pictures), squeeze=False))
    for column, (clean, adversarial, before, after, votes) in enumerate(pictures):
        delta = adversarial - clean
        change = delta.mean(-1)
        for row, (picture, title, low, colors) in enumerate(
            (
                (clean, before, 0, "gray"),
                (adversarial, after, 0, "gray"),
                (change / max(1e-9, np.abs(change).max()), f"largest {np.abs(delta).max():.2f}", -1, "RdBu_r"),
            )
        ):
            axes = grid[row, column]
            axes.imshow(picture, vmin=low, vmax=1, cmap=colors, interpolation="nearest")
            axes.set_title(title, fontsize=8.5, loc="center", fontweight="normal")
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            for spine in axes.spines.values():
                spine.set_visible(False)
        axes = grid[3, column]
        axes.bar(range(len(votes)), votes, color=[GREEN if str(c) == before[0] else RED for c in range(len(votes))])
        axes.set(ylim=(0, votes.sum()), xticks=range(0, len(votes), 3))
        axes.tick_params(labelsize=7.5)
    for row, name in enumerate(
        ("original", "adversarial", "difference,\nscaled up", f"votes of {int(pictures[0][4].sum())}\nby class")
    ):
        grid[row, 0].set_ylabel(name, fontsize=9)
    return svg(figure, "Gallery")
