"""Tables: pure functions of ledger rows."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from odefend import intervals
from odefend.dose import Doses
from odefend.evaluation.controls import beside_noise, half_recovery
from odefend.evaluation.detection import detection, precision
from odefend.evaluation.robustness import accuracy, attacked, matrix_cells, recovered, worst_case
from odefend.intervals import Interval
from odefend.report.table import Table


def points(value: Interval) -> str:
    """A difference of rates, in percentage points."""
    return f"{100 * value.value:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]" if value.n else "no data"


def nets(
    crafted: pl.DataFrame,
    judged: pl.DataFrame,
    names: Sequence[str],
    reference: float,
    searches: Sequence[str],
    balls: Sequence[str],
    epsilon: float | None,
) -> Table:
    """Each net: clean accuracy, and what the attacks reach: those for the smallest norm (`searches`), and those in a ball
    (`balls`) of radius `epsilon`."""
    rows = []
    for net in names:
        clean = _at(judged.filter((pl.col("experiment") == "clean") & (pl.col("net") == net)), reference)
        made = attacked(_at(crafted.filter(pl.col("net") == net), reference))
        cells = [net, accuracy(clean).percent]
        for name in searches:
            minimum = made.filter(pl.col("trial") == name)
            hits = minimum.filter("success")
            cells += [
                intervals.rate(hits.height, minimum.height).percent,
                intervals.mean(hits["l2"].to_numpy()).text(),
                intervals.mean(hits["mse"].to_numpy()).text(5),
            ]
        for name in balls:
            ball = made.filter((pl.col("trial") == name) & (pl.col("epsilon") == epsilon))
            cells.append(intervals.rate(int(ball["success"].sum()), ball.height).percent)
        cells.append(intervals.mean(clean["nfe"].to_numpy()).text(1) if clean["nfe"].sum() else "-")
        rows.append(tuple(cells))
    norms = {name: crafted.filter(pl.col("trial") == name)["norm"].first() for name in balls}
    return Table(
        "The nets, and what the attacks do to them",
        (
            "net",
            "clean accuracy",
            *(head for name in searches for head in (f"{name} success", "mean L2", "mean MSE")),
            *(f"{name} success, {norms[name]} {epsilon:g}" for name in balls),
            "mean NFE, clean",
        ),
        tuple(rows),
        f"ODE net at tolerance {reference:g}. Success counts images that the net had right; distances are means "
        "over successes. A ResNet has no solver and no NFE.",
    )


def _at(rows: pl.DataFrame, tolerance: float) -> pl.DataFrame:
    """Rows at a tolerance, and those of nets without one."""
    return rows.filter(pl.col("rtol").is_null() | (pl.col("rtol") == tolerance))


def recovery(
    judged: pl.DataFrame,
    net: str,
    tolerances: Sequence[float],
    doses: Doses | None,
    reference: float,
    attack: str,
) -> Table:
    """What changing the tolerance wins back of the images that `attack` made at `reference`, beside noise of equal dose
    and beside an attacker who pushes on."""
    rows = []
    found = judged.filter((pl.col("experiment") == "recovery") & (pl.col("net") == net))
    still = found.filter(pl.col("defense") == "tolerance")
    noise = found.filter((pl.col("defense") == "noise") & (pl.col("scale") == 1.0))
    scales = [scale for scale in sorted(still["scale"].unique()) if scale >= 1]
    shown = [scale for scale in (1.1, 1.25) if scale in scales]
    for tolerance in tolerances:
        clean = judged.filter(
            (pl.col("experiment") == "clean") & (pl.col("net") == net) & (pl.col("rtol") == tolerance)
        )
        here = still.filter(pl.col("rtol") == tolerance)
        curve = {scale: recovered(here.filter(pl.col("scale") == scale)) for scale in scales}
        attack_here = tolerance == reference
        beside = ("-", "-", "-")
        if doses and noise.filter("attack_success").height and not attack_here:
            equal = beside_noise(here.filter(pl.col("scale") == 1.0), noise, doses, tolerance)
            sigma = f"{equal.sigma:.4f}" + (" (weak)" if equal.weak else "")
            beside = (sigma, equal.recovered.percent, points(equal.difference))
        s50 = half_recovery({scale: value.value for scale, value in curve.items()})
        rows.append(
            (
                f"{tolerance:g}" + (" (attacked)" if attack_here else ""),
                accuracy(clean).percent,
                curve[1.0].percent,
                *beside,
                *(curve[scale].percent for scale in shown),
                "-" if attack_here or not curve[1.0].n or not curve[1.0].value else f"{s50:.3f}",
            )
        )
    return Table(
        "Does judging at another tolerance win adversarial images back?",
        (
            "tolerance",
            "clean accuracy",
            f"{attack} won back, s = 1",
            "noise of equal dose (sigma)",
            "noise wins back, s = 1",
            "tolerance minus noise, points",
            *(f"won back, s = {scale:g}" for scale in shown),
            "s50",
        ),
        tuple(rows),
        f"{attack} images made at tolerance {reference:g} that fooled {net} there. s scales their perturbation; s50 is "
        "the s at which half of what was won back at s = 1 is lost again. Noise: Gaussian, on the image, judged at "
        "the attacked tolerance, several draws averaged per image; its dose (median change of the true margin) is "
        "matched on clean calibration images, and intervals hold the uncertainty of the dose as well. Weak: stronger noise "
        "than was measured may be what has that dose.",
    )


def matrix(
    crafted: pl.DataFrame, judged: pl.DataFrame, grid: Sequence[float], net: str, epsilon: float, attack: str
) -> Table:
    """Accuracy of images attacked at one tolerance and judged at another; the last row is the worst case per image."""
    cells = matrix_cells(crafted, judged, grid)
    rows = [(f"attacked at {attack:g}", *(cells[attack, test].percent for test in grid)) for attack in grid]
    best = [min((cells[attack, test] for attack in grid), key=lambda cell: cell.value) for test in grid]
    worst = [worst_case(crafted, judged, net, test, epsilon) for test in grid]
    return Table(
        f"Accuracy under {attack}: attacked at one tolerance, judged at another",
        ("", *(f"judged at {test:g}" for test in grid)),
        (
            *rows,
            ("best of these attacks", *(cell.percent for cell in best)),
            ("worst case per image, all attacks", *(cell.percent for cell in worst)),
        ),
        f"Radius {epsilon:g}, of the images that {net} had right. An attacker who knows the tested tolerance picks the worst "
        "cell of its column, or does better: the worst case counts an image as lost if any attack of this radius breaks it "
        "at the tested tolerance, those with the gradients of a tighter solve, of exact differentiation, with more steps and "
        "from the ResNet included where they were run.",
    )


def detectors(scored: pl.DataFrame, names: Sequence[str], scales: Sequence[float]) -> Table:
    """Area under the ROC of each detector at each scale."""
    rows = []
    for name in names:
        cost = scored.filter(pl.col("detector") == name)["cost"].max()
        rows.append((name, str(cost), *(detection(scored, name, scale).area.text() for scale in scales)))
    count = scored.filter(pl.col("kind") == "clean")["image"].n_unique()
    return Table(
        "Do detectors tell attacked images from clean ones?",
        ("detector", "passes", *(f"AUROC, s = {scale:g}" for scale in scales)),
        tuple(rows),
        f"{count} clean test images (among them the originals of the attacked ones) against the attacked images that "
        "fooled the net. The attacker knows nothing of the detector, but may push on by s. AUROC: how often an attacked image "
        "looks more suspicious than a clean one; 0.5 is guessing.",
    )


def alarms(scored: pl.DataFrame, names: Sequence[str], scales: Sequence[float], allowed: float = 0.05) -> Table:
    """What each detector catches at a threshold that was set on calibration images, at the least and the largest scale."""
    rows = []
    for name in names:
        first, last = (detection(scored, name, scale, allowed) for scale in (scales[0], scales[-1]))
        rows.append(
            (
                name,
                first.false_alarms.percent,
                first.caught.percent,
                last.caught.percent,
                f"{100 * precision(first.caught.value, first.false_alarms.high):.0f} %"
                if first.caught.n
                else "no data",
            )
        )
    count = scored.filter(pl.col("kind") == "calibration")["image"].n_unique()
    return Table(
        "What do detectors catch at a calibrated threshold?",
        (
            "detector",
            "false alarms",
            f"caught, s = {scales[0]:g}",
            f"caught, s = {scales[-1]:g}",
            "precision at 1 %",
        ),
        tuple(rows),
        f"The threshold of each detector is the conformal one for {100 * allowed:g} % false alarms, from {count} clean calibration "
        "images; votes come in whole steps, so theirs alarm less. Precision at 1 %: the share of alarms that are attacks where one "
        f"image in a hundred is attacked, at s = {scales[0]:g} and the upper bound of the false alarms.",
    )


def work(judged: pl.DataFrame, net: str, tolerances: Sequence[float]) -> Table:
    """Evaluations of the vector field by tolerance, on clean images."""
    rows = []
    for tolerance in tolerances:
        nfe = judged.filter((pl.col("experiment") == "clean") & (pl.col("net") == net) & (pl.col("rtol") == tolerance))[
            "nfe"
        ].to_numpy()
        rows.append((f"{tolerance:g}", intervals.mean(nfe).text(1), f"{np.quantile(nfe, 0.95):.0f}", str(nfe.max())))
    return Table(
        "Work by tolerance",
        ("tolerance", "mean NFE", "95th percentile", "largest"),
        tuple(rows),
        f"Evaluations of {net}'s vector field per clean test image: 2 + 6 per attempted step.",
    )
