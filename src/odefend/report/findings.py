"""What the rows mean, in plain words. A sentence is chosen by the numbers, never by hope."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from odefend import intervals
from odefend.dose import Beside, Doses
from odefend.evaluation.controls import beside_noise, strongest
from odefend.evaluation.detection import area_difference, detection
from odefend.evaluation.doubts import Doubt, any_open
from odefend.evaluation.robustness import accuracy, attacked, by_image, difference, matrix_cells, recovered, worst_case
from odefend.intervals import Interval
from odefend.report.tables import points


def verdict(
    doubts: list[Doubt],
    crafted: pl.DataFrame,
    net: str,
    epsilon: float,
    judged: pl.DataFrame,
    grid: Sequence[float | None],
) -> str:
    """The bottom line: never that a net withstands what was not tried, nor more than these attacks show while a doubt is open."""
    shares = {t: worst_case(crafted, judged, net, t, epsilon) for t in grid}
    worst = "; ".join(
        share.percent if t is None else f"{share.percent} at tolerance {t:g}" for t, share in shares.items()
    )
    norm = "" if crafted.is_empty() else f"{crafted['norm'][0]} "
    text = (
        f"Of the images that {net} has right, these withstand every attack of {norm}radius {epsilon:g} that was run against "
        f"them: {worst}."
    )
    if any_open(doubts) or not all(share.n for share in shares.values()):
        return text + (
            " The attacks show only that accuracy is no higher than this, up to sampling error; with the doubts that are "
            "open below, a better attack is likely to lower it. Nothing here supports a claim of security."
        )
    return text + (
        " The checks below found no sign of a weak attack: accuracy under these attacks is at most this, up to sampling error, "
        "and a better attack may still lower it."
    )


def undefended(crafted: pl.DataFrame, net: str, control: str, attack: str) -> str:
    """What the minimum-norm attack does to a net by itself, beside its control."""
    rows, other = (
        attacked(crafted.filter((pl.col("trial") == attack) & (pl.col("net") == name))).filter("success")
        for name in (net, control)
    )
    count = attacked(crafted.filter((pl.col("trial") == attack) & (pl.col("net") == net))).height
    both = rows.join(other.select("image", other_l2="l2"), on="image")
    gap = intervals.mean((both["l2"] - both["other_l2"]).to_numpy())
    return (
        f"{attack}, which has no limit on the size of a change, changes the answer of {net} for "
        f"{intervals.rate(rows.height, count).percent} of the images it had right, at a mean L2 norm of "
        f"{intervals.mean(rows['l2'].to_numpy()).text()}. On the images that both nets lose, {net} minus {control} is "
        f"{gap.text()}: a longer way counts for the net only if the search for the shortest one has converged."
    )


def against_noise(judged: pl.DataFrame, net: str, doses: Doses, attack: str, reference: float) -> str:
    """Whether any tolerance but `reference`, at which the attack was made, wins back more than noise: of equal dose on clean
    images, and the strongest that pushed images were judged under.

    A tolerance does not count as better where noise of its dose may be stronger than any that was measured: its control is too
    weak.
    """
    found = judged.filter((pl.col("experiment") == "recovery") & (pl.col("net") == net) & (pl.col("scale") == 1.0))
    still, noise = (found.filter(pl.col("defense") == kind) for kind in ("tolerance", "noise"))
    if not found.filter("attack_success").height:
        return "The attack broke no image, so there was nothing to win back."
    at = {t: still.filter(pl.col("rtol") == t) for t in doses.changes if t != reference}
    equal = {t: beside_noise(rows, noise, doses, t) for t, rows in at.items()}
    share, loudest = {t: recovered(rows) for t, rows in at.items()}, strongest(judged)
    best = [t for t in at if share[t].value == max(value.value for value in share.values())]
    loud_gaps = {t: difference(rows, noise.filter(pl.col("sigma") == loudest)) for t, rows in at.items()}
    clean = intervals.mean(by_image(judged.filter(pl.col("experiment") == "clean under noise"))["correct"].to_numpy())
    first = equal[best[0]]
    return (
        f"Solved at tolerance {_list(best)} (the best of {len(at)}, chosen on these images), {share[best[0]].percent} of "
        f"the {attack} images are right again; noise of the same dose on clean images (sigma {first.sigma:.4f}"
        f"{', or stronger' if first.weak else ''}) wins back "
        f"{first.recovered.percent}, tolerance minus noise {points(first.difference)} points. Against the strongest noise measured "
        f"(sigma {loudest:.3f}, clean accuracy {clean.percent}) the difference is {points(loud_gaps[best[0]])} points. "
        + _beaten(equal, loud_gaps)
        + f" ({len(at)} comparisons, each by its own 95 % interval, which holds the uncertainty of the dose; not corrected.)"
    )


def _beaten(equal: dict[float, Beside], loud_gaps: dict[float, Interval]) -> str:
    """Where a tolerance wins back more than noise of its dose, or less, and where that cannot be told."""
    weak = [t for t, one in equal.items() if one.weak]
    better = [t for t, one in equal.items() if one.difference.low > 0 and not one.weak]
    beyond = [t for t in better if loud_gaps[t].low > 0]
    worse = [t for t, one in equal.items() if one.difference.high < 0]
    if beyond:
        text = f"Tolerance wins back significantly more than either noise at {_list(beyond)}."
    elif better:
        text = (
            f"Tolerance wins back significantly more than noise of its own dose at {_list(better)}, but nowhere more than "
            "the stronger noise."
        )
    elif worse:
        text = f"At no tolerance more than noise of its dose, and at {_list(worse)} significantly less."
    else:
        text = "These images cannot tell the tolerance from noise of its dose."
    if weak:
        text += (
            f" At {_list(weak)} noise that changes clean images as much as the tolerance does may be stronger than any that was "
            "measured: there the control is too weak, and the tolerance is not counted as better."
        )
    return text


def numerical_error(
    judged: pl.DataFrame, net: str, reference: float, tight: float, next_tight: float, attack: str
) -> str:
    """Whether the attacked images are adversarial for the accurately solved net, or for the coarse solve only."""
    rows = judged.filter((pl.col("net") == net) & (pl.col("scale") == 1.0) & (pl.col("defense") == "tolerance"))
    images = rows.filter((pl.col("experiment") == "recovery") & pl.col("attack_success"))
    if not images.height:
        return "No image was broken, so nothing can be said of the numerical error at attacked images."
    originals = rows.filter(pl.col("experiment") == "clean").join(
        images.select("image").unique(), on="image", how="semi"
    )
    moved = [float(np.median(np.abs(_change(part, reference, tight)))) for part in (images, originals)]
    same = _pairs(images, tight, next_tight, "prediction")
    agree = int((same["prediction"] == same["prediction_other"]).sum())
    right = recovered(images.filter(pl.col("rtol") == tight))
    text = (
        f"Solved at {tight:g}, {right.percent} of the {attack} images are right, and {next_tight:g} gives the same answer on "
        f"{agree} of {same.height}. From {reference:g} to {tight:g} the true margin moves by a median of {moved[0]:.3f} on "
        f"these images and of {moved[1]:.3f} on their own originals. "
    )
    # A single image at its boundary does not make the tight solve inaccurate.
    if right.low > 0.1 and agree >= 0.95 * same.height and moved[0] > 10 * moved[1]:
        return text + (
            "So many of these images are not adversarial for the accurately solved net: the attack succeeded against the "
            "numerical error of the tolerance it attacked. Whether any other change of that size would meet such an error "
            "was not tested."
        )
    return text + "That is no clear sign that numerical error explains the attack's success."


def _pairs(rows: pl.DataFrame, one: float, other: float, column: str) -> pl.DataFrame:
    """`column` at two tolerances, a row per image."""
    first, second = (
        rows.filter((pl.col("rtol") == t) & (pl.col("status") == 0)).select("image", column) for t in (one, other)
    )
    return first.join(second, on="image", suffix="_other")


def _change(rows: pl.DataFrame, one: float, other: float) -> np.ndarray:
    """Change of the true margin from one tolerance to another, per image."""
    pairs = _pairs(rows, one, other, "true_margin")
    return (pairs["true_margin_other"] - pairs["true_margin"]).to_numpy()


def pushing_on(judged: pl.DataFrame, net: str, tolerances: Sequence[float]) -> str:
    """What is left, at each of these tolerances, when the attacker goes further."""
    found = judged.filter((pl.col("experiment") == "recovery") & (pl.col("net") == net))
    if not found.filter("attack_success").height:
        return "The attack broke no image, so there was nothing to push further."
    loudest, parts = strongest(judged), list[str]()
    for scale in (scale for scale in (1.05, 1.1, 1.25) if scale in found["scale"]):
        rows = found.filter(pl.col("scale") == scale)
        at = {t: rows.filter((pl.col("defense") == "tolerance") & (pl.col("rtol") == t)) for t in tolerances}
        noise = rows.filter((pl.col("defense") == "noise") & (pl.col("sigma") == loudest))
        best = max(tolerances, key=lambda t: recovered(at[t]).value)
        parts.append(
            f"at s = {scale:g} {recovered(at[best]).percent} (tolerance {best:g}; minus noise of sigma {loudest:.3f}: "
            f"{points(difference(at[best], noise))} points)"
        )
    return (
        "An attacker who multiplies the found perturbation by s needs to know nothing of the defense, and pays with a "
        f"perturbation s times as large. The tolerance that is best for each s on these images then wins back {', '.join(parts)}."
    )


def best_response(crafted: pl.DataFrame, judged: pl.DataFrame, grid: Sequence[float], net: str, epsilon: float) -> str:
    """What mismatch seems to win, and what an attacker who knows the tested tolerance leaves of it."""
    cells = matrix_cells(crafted, judged, grid)
    off = [cells[a, t].value for a in grid for t in grid if a != t]
    on = [cells[t, t].value for t in grid]
    worst = "; ".join(f"{worst_case(crafted, judged, net, t, epsilon).percent} at {t:g}" for t in grid)
    return (
        f"Under the attack of radius {epsilon:g}, attacked and judged at the same tolerance {_span(on)} stay right; at "
        f"different ones {_span(off)}. An attacker who knows the tested tolerance is not limited to either: over all attacks "
        f"run here, image by image, {worst}."
    )


def detecting(scored: pl.DataFrame, vote: str, noise: str, margin: str, scales: Sequence[float]) -> str:
    """Whether the vote beats the margin of one pass, and as many passes under noise."""
    text = []
    for scale in scales:
        area = detection(scored, vote, scale).area
        text.append(
            f"at s = {scale:g} the {vote} has an AUROC of {area.text()}; against the one-pass margin it is "
            f"{_compared(area_difference(scored, vote, margin, scale))}, against the {noise} "
            f"{_compared(area_difference(scored, vote, noise, scale))}"
        )
    cost = scored.filter(pl.col("detector") == vote)["cost"].max()
    return (
        f"Detection: {'; '.join(text)}. The vote takes {cost} passes, the margin one. All of this is for an attacker who does "
        "not know of the detector."
    )


def _compared(gap: Interval) -> str:
    """A paired difference in words."""
    if not gap.n:
        return "not comparable (no data)"
    word = "better" if gap.low > 0 else "worse" if gap.high < 0 else "not distinguishable"
    return f"{word} ({gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}])"


def clean_cost(judged: pl.DataFrame, net: str, tolerances: Sequence[float]) -> str:
    """What loose and tight tolerances cost and lose on clean images."""
    rows = judged.filter((pl.col("experiment") == "clean") & (pl.col("net") == net))
    first, last = tolerances[0], tolerances[-1]
    tight, loose = (rows.filter(pl.col("rtol") == t) for t in (first, last))
    work = [intervals.mean(part["nfe"].to_numpy()).text(0) for part in (tight, loose)]
    return (
        f"On clean images accuracy is {accuracy(tight).percent} at tolerance {first:g} and {accuracy(loose).percent} at "
        f"{last:g}; a solve takes {work[0]} and {work[1]} evaluations of the field."
    )


def _span(values: Sequence[float]) -> str:
    return f"{100 * min(values):.0f} to {100 * max(values):.0f} %"


def _list(tolerances: Sequence[float]) -> str:
    return ", ".join(f"{t:g}" for t in tolerances)
