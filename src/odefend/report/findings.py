"""What the rows mean, in plain words. A sentence is chosen by the numbers, never by hope."""

from collections.abc import Sequence

import polars as pl

from odefend import intervals
from odefend.evaluation.detection import detection
from odefend.evaluation.doubts import Doubt, any_red, attacked
from odefend.report.tables import accuracy, difference, matrix_cells, points, recovered, worst_case


def undefended(crafted: pl.DataFrame, net: str) -> str:
    """What the minimum-norm attack does to a net by itself."""
    rows = attacked(crafted.filter((pl.col("experiment") == "minimum norm") & (pl.col("net") == net)))
    hits = rows.filter("success")
    size = intervals.mean(hits["l2"].to_numpy())
    return (
        f"By itself {net} does not withstand C&W: {intervals.rate(hits.height, rows.height).percent} of the images it "
        f"had right are broken, by perturbations of mean L2 norm {size.text()}."
        if 2 * hits.height >= rows.height
        else f"C&W breaks only {intervals.rate(hits.height, rows.height).percent} of the images that {net} had right. "
        "Suspect the attack first: see the doubts."
    )


def against_noise(judged: pl.DataFrame, net: str, sigmas: dict[float, float]) -> str:
    """Whether any tolerance wins back more than noise of equal dose."""
    found = judged.filter((pl.col("experiment") == "recovery") & (pl.col("net") == net) & (pl.col("scale") == 1.0))
    still, noise = (found.filter(pl.col("defense") == kind) for kind in ("tolerance", "noise"))
    gaps = {
        t: difference(still.filter(pl.col("rtol") == t), noise.filter(pl.col("sigma") == sigma))
        for t, sigma in sigmas.items()
    }
    gaps = {t: gap for t, gap in gaps.items() if gap.n}
    if not gaps:
        return "The attack broke no image, so there was nothing to win back."
    best = max(sigmas, key=lambda t: recovered(still.filter(pl.col("rtol") == t)).value)
    text = (
        f"The best single tolerance ({best:g}) wins back {recovered(still.filter(pl.col('rtol') == best)).percent} of the "
        f"C&W images; noise of equal dose wins back {recovered(noise.filter(pl.col('sigma') == sigmas[best])).percent} "
        f"(tolerance minus noise: {points(gaps[best])} points). "
    )
    better, worse = [t for t, gap in gaps.items() if gap.low > 0], [t for t, gap in gaps.items() if gap.high < 0]
    if better:
        text += f"Tolerance wins back significantly more than noise (each by its own 95 % interval) at {_list(better)}"
        text += f", and significantly less at {_list(worse)}." if worse else "; nowhere significantly less."
    elif worse:
        text += (
            f"At no tolerance does it win back significantly more than noise, and at {_list(worse)} significantly less: "
            "what is seen is what any small change of the computation does to images that sit on the boundary."
        )
    else:
        text += (
            "At no tolerance do the two differ significantly: this many images cannot tell the tolerance from any "
            "other small change."
        )
    return text


def numerical_error(judged: pl.DataFrame, net: str, reference: float, tight: float) -> str:
    """How far the attacked images stand in the solver's numerical error: why another tolerance may win them back."""
    moved = {
        kind: _change(judged.filter((pl.col("net") == net) & (pl.col("experiment") == experiment)), reference, tight)
        for kind, experiment in (("clean", "clean"), ("adversarial", "recovery"))
    }
    if not moved["adversarial"]:
        return "No image was broken, so nothing can be said of the numerical error at attacked images."
    ratio = moved["adversarial"] / moved["clean"]
    text = (
        f"Solving at {tight:g} instead of {reference:g} moves the true margin of clean images by {moved['clean']:.2f} (root "
        f"mean square) and that of the C&W images by {moved['adversarial']:.2f}, {ratio:.1f} times as much. "
    )
    if ratio > 2:
        return text + (
            "So the attack found places where the coarse solve is wrong: part of its success is against the numerical "
            "error of the attacked tolerance, and that part, not the net, is what another tolerance mends. Noise matched "
            "on clean images is a mild control for it; the s-curve is the strict one."
        )
    return text + "So the attack is against the net itself, not against the numerical error of the attacked tolerance."


def _change(judged: pl.DataFrame, reference: float, tight: float) -> float:
    """Root mean square change of the true margin between two tolerances; 0 without images."""
    rows = judged.filter(
        (pl.col("scale") == 1.0)
        & (pl.col("defense") == "tolerance")
        & (pl.col("attack_success") | (pl.col("kind") == "clean"))
    )
    one, other = (rows.filter(pl.col("rtol") == t).select("image", "true_margin") for t in (reference, tight))
    pairs = one.join(other, on="image", suffix="_tight")
    change = (pairs["true_margin_tight"] - pairs["true_margin"]).to_numpy()
    return float((change**2).mean() ** 0.5) if len(change) else 0.0


def pushing_on(judged: pl.DataFrame, net: str, sigmas: dict[float, float]) -> str:
    """What is left when the attacker goes further than the boundary."""
    still = judged.filter(
        (pl.col("experiment") == "recovery") & (pl.col("net") == net) & (pl.col("defense") == "tolerance")
    )
    parts = []
    for scale in (1.05, 1.1, 1.25):
        rows = still.filter(pl.col("scale") == scale)
        value = max((recovered(rows.filter(pl.col("rtol") == t)) for t in sigmas), key=lambda one: one.value)
        parts.append(f"{value.percent} at s = {scale:g}")
    return (
        "An attacker who multiplies the found perturbation by s needs no knowledge at all. The best tolerance then wins "
        f"back {', '.join(parts)}."
    )


def best_response(crafted: pl.DataFrame, judged: pl.DataFrame, grid: Sequence[float], epsilon: float) -> str:
    """What an attacker who knows the tested tolerance reaches."""
    cells = matrix_cells(crafted, judged, grid)
    parts = [
        f"{min((cells[a, test] for a in grid), key=lambda cell: cell.value).percent} at {test:g} (all three attacks "
        f"together: {worst_case(crafted, judged, test).percent})"
        for test in grid
    ]
    off = max((cells[a, t] for a in grid for t in grid if a != t), key=lambda cell: cell.value)
    return (
        f"Mismatched tolerances look good: up to {off.percent} right under PGD at L-inf {epsilon:g}. An attacker who knows "
        f"the tested tolerance leaves {'; '.join(parts)}."
    )


def detecting(scored: pl.DataFrame, votes: str, margin: str, scales: Sequence[float]) -> str:
    """Whether the vote beats the baseline that costs one pass."""
    text = []
    for scale in scales:
        vote, once = detection(scored, votes, scale).area, detection(scored, margin, scale).area
        text.append(
            f"at s = {scale:g} the {votes} reaches an AUROC of {vote.text()}, the one-pass margin {once.text()}"
        )
    at_first = detection(scored, votes, scales[0]).area.value - detection(scored, margin, scales[0]).area.value
    verdict = (
        "The vote is the better of the two at s = 1."
        if at_first > 0
        else "The margin, read off a single pass, is no worse at s = 1, and the vote costs 20 times as much."
    )
    fooled = (
        "A detector for images on the boundary finds images on the boundary; both numbers are for an attacker who "
        "does not know of it."
    )
    return f"Detection: {'; '.join(text)}. {verdict} {fooled}"


def verdict(
    doubts: list[Doubt], crafted: pl.DataFrame, net: str, epsilon: float, judged: pl.DataFrame, grid: Sequence[float]
) -> str:
    """The bottom line; the word for withstanding is not printed while a doubt is open."""
    rows = attacked(
        crafted.filter(
            (pl.col("experiment") == "epsilon curve") & (pl.col("net") == net) & (pl.col("epsilon") == epsilon)
        )
    )
    left = intervals.rate(rows.height - int(rows["success"].sum()), rows.height)
    worst = min((worst_case(crafted, judged, test) for test in grid), key=lambda one: one.value)
    text = (
        f"Under PGD at L-inf {epsilon:g}, {net} keeps {left.percent} of the images it had right, and "
        f"{worst.percent} at the weakest tolerance in the worst case over the tolerances attacked at."
    )
    if any_red(doubts):
        return text + (
            " At least one doubt below is not cleared, so these are upper bounds of what the net withstands, "
            "and nothing here supports a claim of security."
        )
    return text + (
        " No doubt below is red. That makes these numbers believable as the robust accuracy against these "
        "attacks; a stronger attack may still lower them."
    )


def _list(tolerances: Sequence[float]) -> str:
    return ", ".join(f"{t:g}" for t in tolerances)


def clean_cost(judged: pl.DataFrame, net: str, tolerances: Sequence[float]) -> str:
    """What loose and tight tolerances cost and lose on clean images."""
    rows = judged.filter((pl.col("experiment") == "clean") & (pl.col("net") == net))
    first, last = tolerances[0], tolerances[-1]
    tight, loose = (rows.filter(pl.col("rtol") == t) for t in (first, last))
    return (
        f"On clean images accuracy is {accuracy(tight).percent} at tolerance {first:g} and {accuracy(loose).percent} at "
        f"{last:g}; a solve takes {tight['nfe'].mean():.0f} and {loose['nfe'].mean():.0f} evaluations of the field."
    )
