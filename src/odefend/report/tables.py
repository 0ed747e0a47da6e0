"""Tables: pure functions of ledger rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from odefend import intervals
from odefend.evaluation.controls import half_recovery
from odefend.evaluation.detection import detection
from odefend.evaluation.doubts import attacked
from odefend.intervals import Interval


@dataclass(frozen=True)
class Table:
    """A table with a title, column heads, text cells, and a note that says what it rests on."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def accuracy(judged: pl.DataFrame) -> Interval:
    """Share of rows judged rightly."""
    return intervals.rate(int(judged["correct"].sum()), judged.height)


def by_image(judged: pl.DataFrame) -> pl.DataFrame:
    """Each image's share of right judgements over its draws."""
    return judged.group_by("image").agg(pl.col("correct").cast(pl.Float64).mean()).sort("image")


def recovered(judged: pl.DataFrame) -> Interval:
    """Share of successful adversarial images judged rightly; draws are averaged per image first."""
    rows = by_image(judged.filter(pl.col("attack_success")))
    if judged["draw"].n_unique() <= 1:
        return intervals.rate(int(rows["correct"].sum()), rows.height)
    return intervals.mean(rows["correct"].to_numpy())


def difference(one: pl.DataFrame, other: pl.DataFrame) -> Interval:
    """Mean difference per image between two judgements of the same adversarial images, paired, with its interval."""
    pairs = by_image(one.filter(pl.col("attack_success"))).join(
        by_image(other.filter(pl.col("attack_success"))), on="image", suffix="_other"
    )
    return intervals.mean((pairs["correct"] - pairs["correct_other"]).to_numpy())


def points(value: Interval) -> str:
    """A difference of rates in percentage points."""
    return f"{100 * value.value:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]" if value.n else "no data"


def nets(crafted: pl.DataFrame, judged: pl.DataFrame, names: Sequence[str], reference: float, epsilon: float) -> Table:
    """Each net: clean accuracy, what the attacks reach, and at what distance."""
    rows = []
    for net in names:
        clean = judged.filter(
            (pl.col("experiment") == "clean")
            & (pl.col("net") == net)
            & (pl.col("rtol").is_null() | (pl.col("rtol") == reference))
        )
        minimum = attacked(crafted.filter((pl.col("experiment") == "minimum norm") & (pl.col("net") == net)))
        ball = attacked(
            crafted.filter(
                (pl.col("experiment") == "epsilon curve") & (pl.col("net") == net) & (pl.col("epsilon") == epsilon)
            )
        )
        hits = minimum.filter("success")
        rows.append(
            (
                net,
                accuracy(clean).percent,
                intervals.rate(hits.height, minimum.height).percent,
                intervals.mean(hits["l2"].to_numpy()).text(),
                intervals.mean(hits["mse"].to_numpy()).text(5),
                intervals.rate(int(ball["success"].sum()), ball.height).percent,
                f"{clean['nfe'].mean():.1f}",
            )
        )
    return Table(
        "The nets, and what the attacks do to them",
        (
            "net",
            "clean accuracy",
            "C&W success",
            "mean L2",
            "mean MSE",
            f"PGD success, L-inf {epsilon:g}",
            "mean NFE, clean",
        ),
        tuple(rows),
        f"ODE net at tolerance {reference:g}. Success counts images that the net had right; distances are means "
        "over successes. A ResNet has no solver and no NFE.",
    )


def recovery(
    judged: pl.DataFrame, net: str, tolerances: Sequence[float], sigmas: dict[float, float], reference: float
) -> Table:
    """What changing the tolerance wins back, beside noise of equal dose and beside an attacker who pushes on."""
    rows = []
    found = judged.filter((pl.col("experiment") == "recovery") & (pl.col("net") == net))
    still = found.filter(pl.col("defense") == "tolerance")
    for tolerance in tolerances:
        clean = judged.filter(
            (pl.col("experiment") == "clean") & (pl.col("net") == net) & (pl.col("rtol") == tolerance)
        )
        here = still.filter(pl.col("rtol") == tolerance)
        curve = {scale: recovered(here.filter(pl.col("scale") == scale)) for scale in (1.0, 1.02, 1.05, 1.1, 1.25, 1.5)}
        noise = found.filter(
            (pl.col("defense") == "noise") & (pl.col("scale") == 1.0) & (pl.col("sigma") == sigmas.get(tolerance, -1.0))
        )
        attack_here = tolerance == reference
        s50 = half_recovery({scale: value.value for scale, value in curve.items()})
        rows.append(
            (
                f"{tolerance:g}" + (" (attacked)" if attack_here else ""),
                accuracy(clean).percent,
                curve[1.0].percent,
                "-" if attack_here else f"{sigmas[tolerance]:.4f}",
                "-" if attack_here else recovered(noise).percent,
                "-" if attack_here else points(difference(here.filter(pl.col("scale") == 1.0), noise)),
                curve[1.1].percent,
                curve[1.25].percent,
                "-" if attack_here or not curve[1.0].value else f"{s50:.3f}",
            )
        )
    return Table(
        "Does judging at another tolerance win adversarial images back?",
        (
            "tolerance",
            "clean accuracy",
            "C&W won back, s = 1",
            "noise of equal dose (sigma)",
            "noise wins back, s = 1",
            "tolerance minus noise, points",
            "won back, s = 1.1",
            "won back, s = 1.25",
            "s50",
        ),
        tuple(rows),
        f"C&W images made at tolerance {reference:g} that fooled {net} there. s scales their perturbation; s50 is "
        "the s at which half of what was won back at s = 1 is lost again. Noise: Gaussian, on the image, judged at "
        "the attacked tolerance, several draws averaged per image; its dose (RMS change of the true margin) is "
        "matched on clean calibration images.",
    )


def matrix(crafted: pl.DataFrame, judged: pl.DataFrame, grid: Sequence[float]) -> Table:
    """Accuracy of images attacked at one tolerance and judged at another; the last row is the attacker's best choice."""
    cells = matrix_cells(crafted, judged, grid)
    rows = [(f"attacked at {attack:g}", *(cells[attack, test].percent for test in grid)) for attack in grid]
    best = [min((cells[attack, test] for attack in grid), key=lambda cell: cell.value) for test in grid]
    return Table(
        "Accuracy under PGD: attacked at one tolerance, judged at another",
        ("", *(f"judged at {test:g}" for test in grid)),
        (
            *rows,
            ("best single choice of the attacker", *(cell.percent for cell in best)),
            ("worst case per image", *(worst_case(crafted, judged, test).percent for test in grid)),
        ),
        "Of the images that the net had right at the attacked tolerance. An attacker who knows the tested "
        "tolerance picks the worst cell of its column; the worst case counts an image as lost if any of the "
        "three attacks breaks it.",
    )


def matrix_rows(crafted: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """The judged rows of the matrix with the tolerance each image was attacked at."""
    made = crafted.filter(pl.col("experiment") == "tolerance matrix").select(
        pl.col("key").alias("crafted"), "image", attacked_at="rtol"
    )
    return judged.filter((pl.col("experiment") == "tolerance matrix") & ~pl.col("initially_wrong")).join(
        made, on=["crafted", "image"]
    )


def matrix_cells(
    crafted: pl.DataFrame, judged: pl.DataFrame, grid: Sequence[float]
) -> dict[tuple[float, float], Interval]:
    """Accuracy by (attacked at, judged at)."""
    rows = matrix_rows(crafted, judged)
    return {
        (attack, test): accuracy(rows.filter((pl.col("attacked_at") == attack) & (pl.col("rtol") == test)))
        for attack in grid
        for test in grid
    }


def worst_case(crafted: pl.DataFrame, judged: pl.DataFrame, test: float) -> Interval:
    """Accuracy at one tolerance where an image counts only if it withstands the attacks made at every tolerance."""
    rows = matrix_rows(crafted, judged).filter(pl.col("rtol") == test).group_by("image").agg(pl.col("correct").all())
    return accuracy(rows)


def detectors(scored: pl.DataFrame, names: Sequence[str], scales: Sequence[float]) -> Table:
    """Area under the ROC of each detector at each scale, and what it catches at 5 % false alarms."""
    rows = []
    for name in names:
        found = [detection(scored, name, scale) for scale in scales]
        cost = scored.filter(pl.col("detector") == name)["cost"].max()
        rows.append(
            (name, str(cost), *(one.area.text() for one in found), found[0].caught.percent, found[-1].caught.percent)
        )
    return Table(
        "Do detectors tell attacked images from clean ones?",
        (
            "detector",
            "passes",
            *(f"AUROC, s = {scale:g}" for scale in scales),
            "caught at 5 % false alarms, s = 1",
            f"caught, s = {scales[-1]:g}",
        ),
        tuple(rows),
        f"{scored.filter(pl.col('kind') == 'clean')['image'].n_unique()} clean test images against the C&W images "
        "that fooled the net. The attacker knows nothing of the detector, but may push on by s. The 5 % threshold "
        "is set on these clean images.",
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
