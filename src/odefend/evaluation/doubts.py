"""Doubts: signs that an attack was too weak for its result to mean anything, computed from rows.

After Carlini et al. 2019 (arXiv 1902.06705), Athalye et al. 2018 (arXiv 1802.00420) and Pintor et al. 2022
(arXiv 2106.09947). A doubt is red when its sign is there, clear when it was looked for and not found, and unknown
when the rows do not tell.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import polars as pl

from odefend.intervals import rate

Verdict = Literal["red", "clear", "unknown"]


@dataclass(frozen=True)
class Doubt:
    """A question to an attack, what the rows answer, and the verdict."""

    question: str
    finding: str
    verdict: Verdict


def attacked(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of images that the net had right, and that were therefore attacked."""
    return rows.filter(~pl.col("initially_wrong"))


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


def more_steps(fewer: pl.DataFrame, more: pl.DataFrame) -> Doubt:
    """Twice the steps must not break noticeably more images."""
    lost, gained, n = _paired(fewer, more)
    return Doubt(
        "Do more steps still help?",
        f"of {n} images, {gained} fall only with twice the steps, {lost} only without",
        _verdict(gained - lost > max(1, 0.02 * n), n > 0),
    )


def converged(minimum: pl.DataFrame) -> Doubt:
    """The last round of a minimum-norm search must not shorten the perturbations noticeably any more."""
    rows = attacked(minimum).filter(pl.col("success") & (pl.col("history").list.len() >= 2))
    before = rows["history"].list.get(-2) if rows.height else pl.Series([], dtype=pl.Float64)
    after = rows["history"].list.last() if rows.height else pl.Series([], dtype=pl.Float64)
    late = int(before.is_infinite().sum())
    ratio = ((before - after) / before).filter(before.is_finite())
    gain = float(ratio.to_numpy().mean()) if len(ratio) else 0.0
    return Doubt(
        "Has the minimum-norm search converged?",
        f"its last round shortened perturbations by {100 * gain:.1f} % on average and broke {late} further "
        f"images, of {rows.height}",
        _verdict(gain > 0.02 or late > 0, rows.height > 0),
    )


def slack(at_attack: pl.DataFrame) -> Doubt:
    """Pulled back by 5 %, a minimal adversarial image must no longer be one."""
    rows = at_attack.filter(pl.col("attack_success") & (pl.col("scale") == 0.95))
    still = rows.filter(~pl.col("correct")).height
    return Doubt(
        "Are the perturbations minimal?",
        f"pulled back by 5 %, {rate(still, rows.height).percent} still fool the net",
        _verdict(rows.height > 0 and still / rows.height > 0.25, rows.height > 0),
    )


def gradients(rows: pl.DataFrame) -> Doubt:
    """Zero or non-finite gradients are a sign of masking."""
    calls, zero = int(rows["gradient_calls"].sum()), int(rows["zero_gradients"].sum())
    return Doubt(
        "Are gradients zero or not finite?", f"{zero} of {calls} gradients", _verdict(zero > 0.01 * calls, calls > 0)
    )


def transfer(white: pl.DataFrame, other: pl.DataFrame, name: str) -> Doubt:
    """Gradients of another net or tolerance must not break more images than the net's own."""
    lost, gained, n = _paired(white, other)
    return Doubt(
        f"Do gradients from {name} beat the net's own?",
        f"own {success_text(white)}, from {name} {success_text(other)}; {gained} images fall to the latter "
        f"only, {lost} to the former only",
        _verdict(gained - lost > max(1, 0.02 * n), n > 0),
    )


def gradient_mode(unrolled: pl.DataFrame, exact: pl.DataFrame) -> Doubt:
    """How gradients are taken through the solver must not decide the result."""
    lost, gained, n = _paired(unrolled, exact)
    return Doubt(
        "Does the gradient mode matter?",
        f"unrolled {success_text(unrolled)}, exact {success_text(exact)}; {gained + lost} of {n} images differ",
        _verdict(abs(gained - lost) > max(1, 0.05 * n), n > 0),
    )


def solver_failures(judged: pl.DataFrame) -> Doubt:
    """Abstentions are neither right nor fooled; many of them would hide behind both rates."""
    failed = judged.filter(pl.col("status") != 0).height
    return Doubt(
        "Did the solver fail on any image?",
        f"{failed} of {judged.height} solves",
        _verdict(failed > 0, judged.height > 0),
    )


def any_red(doubts: list[Doubt]) -> bool:
    """Whether a result must not be called robust."""
    return any(doubt.verdict != "clear" for doubt in doubts)
