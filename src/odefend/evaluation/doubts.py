"""Doubts: signs that an attack was too weak for its result to mean anything, computed from rows.

After Carlini et al. 2019 (arXiv 1902.06705), Athalye et al. 2018 (arXiv 1802.00420) and Pintor et al. 2022
(arXiv 2106.09947). A doubt is red when its sign is there, clear when it was looked for and not found, and unknown
when the rows do not tell.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import polars as pl

from odefend.evaluation.robustness import attacked, fooled
from odefend.intervals import rate

Verdict = Literal["red", "clear", "unknown"]

PULLED_BACK = 0.95
"""A minimal adversarial image is none any more when its perturbation is multiplied by this."""


@dataclass(frozen=True)
class Doubt:
    """A question to an attack, what the rows answer, and the verdict."""

    question: str
    finding: str
    verdict: Verdict


def success_text(rows: pl.DataFrame) -> str:
    """The success rate among attacked images with its interval."""
    rows = attacked(rows)
    return rate(int(rows["success"].sum()), rows.height).percent


def _paired(weak: pl.DataFrame, strong: pl.DataFrame) -> tuple[int, int, int]:
    """(images broken by the first only, by the second only, compared)."""
    both = attacked(weak).select("image", "success").join(attacked(strong).select("image", other="success"), on="image")
    return (
        both.filter(pl.col("success") & ~pl.col("other")).height,
        both.filter(~pl.col("success") & pl.col("other")).height,
        both.height,
    )


def _nearer(weak: pl.DataFrame, strong: pl.DataFrame) -> tuple[int, int]:
    """Of two attacks of smallest norm: (images on which the second comes nearer by 5 % or more, images both break)."""
    if "epsilon" not in weak.columns or weak["epsilon"].null_count() < weak.height:
        return 0, 0
    first, second = (attacked(rows).filter("success").select("image", "distance") for rows in (weak, strong))
    both = first.join(second, on="image", suffix="_other")
    return both.filter(pl.col("distance_other") <= 0.95 * pl.col("distance")).height, both.height


def _verdict(bad: bool, known: bool = True) -> Verdict:
    return "unknown" if not known else "red" if bad else "clear"


def unbounded(rows: pl.DataFrame) -> Doubt:
    """A ball that holds every image must give 100 % success."""
    rows = attacked(rows)
    failed = rows.height - int(rows["success"].sum())
    return Doubt(
        "Does an unbounded attack break every image?",
        f"{rows.height - failed} of {rows.height} broken",
        _verdict(failed > 0, rows.height > 0),
    )


def larger_epsilon(curve: dict[float, pl.DataFrame]) -> Doubt:
    """More room must never help less, beyond one image of chance."""
    hits = {epsilon: int(attacked(rows)["success"].sum()) for epsilon, rows in sorted(curve.items())}
    values = list(hits.values())
    drop = max((a - b for a, b in pairwise(values)), default=0)
    text = ", ".join(f"{epsilon:g}: {count}" for epsilon, count in hits.items())
    return Doubt(
        "Does a larger epsilon ever help less?", f"images broken by epsilon: {text}", _verdict(drop > 1, len(hits) > 1)
    )


def converged(minimum: pl.DataFrame) -> Doubt:
    """The last round of a minimum-norm search must not shorten the perturbations noticeably any more, and no image may
    be left over: there is no bound on their size."""
    rows = attacked(minimum)
    never = rows.height - int(rows["success"].sum())
    found = rows.filter(pl.col("success") & (pl.col("history").list.len() >= 2))
    before, after = found["history"].list.get(-2), found["history"].list.last()
    late = int(before.is_infinite().sum()) if found.height else 0
    ratio = ((before - after) / before).filter(before.is_finite()) if found.height else pl.Series([], dtype=pl.Float64)
    gain = float(ratio.to_numpy().mean()) if len(ratio) else 0.0
    return Doubt(
        "Has the minimum-norm search converged?",
        f"of {rows.height} images {never} were never broken and {late} only in the last round, which shortened the other "
        f"perturbations by {100 * gain:.1f} % on average",
        _verdict(gain > 0.02 or late > 0 or never > 0, rows.height > 0 and (found.height > 0 or never > 0)),
    )


def slack(at_attack: pl.DataFrame) -> Doubt:
    """Pulled back by 5 %, a minimal adversarial image must no longer be one."""
    rows = at_attack.filter(pl.col("attack_success") & (pl.col("scale") == PULLED_BACK))
    still = rate(rows.filter(fooled()).height, rows.height)
    return Doubt(
        "Are the perturbations minimal?",
        f"pulled back by 5 %, {still.percent} still fool the net",
        _verdict(still.low > 0.05, rows.height > 0),
    )


def gradients(rows: pl.DataFrame) -> Doubt:
    """Zero or non-finite gradients are a sign of masking; the attack with the largest share of them counts."""
    sums = rows.group_by("key", maintain_order=True).agg(pl.col("gradient_calls").sum(), pl.col("zero_gradients").sum())
    shares = [zero / max(1, calls) for calls, zero in zip(sums["gradient_calls"], sums["zero_gradients"], strict=True)]
    calls = int(sums["gradient_calls"].sum())
    return Doubt(
        "Are gradients zero or not finite?",
        f"{int(sums['zero_gradients'].sum())} of {calls} gradients; in the worst attack {100 * max(shares, default=0):.1f} %",
        _verdict(max(shares, default=0) > 0.01, calls > 0),
    )


def transfer(own: pl.DataFrame, other: pl.DataFrame, what: str, where: str) -> Doubt:
    """Another attack, such as one with more steps or other gradients, must not break noticeably many images that the
    one it stands beside does not."""
    lost, gained, n = _paired(own, other)
    nearer, of = _nearer(own, other)
    near = f"; of {of} images that both break, the latter comes nearer by 5 % or more on {nearer}" if of else ""
    return Doubt(
        f'Does "{what}" break images that {where} does not?',
        f"{where} {success_text(own)}, {what} {success_text(other)}; {gained} images fall to the latter only, {lost} to "
        f"the former only{near}",
        _verdict(gained > max(1, 0.02 * n) or nearer > max(1, 0.1 * of), n > 0),
    )


def solver_failures(judged: pl.DataFrame) -> Doubt:
    """Abstentions are neither right nor fooled; many of them would hide behind both rates."""
    failed = judged.filter(pl.col("status") != 0).height
    return Doubt(
        "Did the solver fail on any image?",
        f"{failed} of {judged.height} solves",
        _verdict(failed > 0, judged.height > 0),
    )


def not_tried(question: str) -> Doubt:
    """A question that the rows cannot answer, since nobody asked."""
    return Doubt(question, "not tried", "unknown")


def any_open(doubts: list[Doubt]) -> bool:
    """Whether any doubt is red or unknown, so that a result must not be called robust."""
    return any(doubt.verdict != "clear" for doubt in doubts)
