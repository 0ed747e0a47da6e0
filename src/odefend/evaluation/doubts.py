"""Doubts: signs that an attack was too weak for its result to mean anything, computed from rows.

After Carlini et al. 2019 (arXiv 1902.06705), Athalye et al. 2018 (arXiv 1802.00420) and Pintor et al. 2022
(arXiv 2106.09947). A doubt is red when its sign is there: on more of the images than may be by chance, by the 95 % interval. It
is clear when it was looked for and is, by the same interval, on hardly any image; and unknown when nobody looked, or on too few
images to tell.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import polars as pl

from odefend.evaluation.robustness import attacked, fooled
from odefend.intervals import Interval, mean, rate

Verdict = Literal["red", "clear", "unknown"]

RARE, COMMON = 0.02, 0.01
"""Shares of images that a sign may be on: clear is what is surely on fewer than the first, red what is surely on more than the
second. Two attacks of the same strength differ by their random starts as well."""

ATTACK = ("attack", "settings", "rtol", "source", "source_rtol", "source_gradient")
"""Columns that tell one attack on a net from another."""

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


def _verdict(*signs: tuple[Interval, float]) -> Verdict:
    """Of signs, each with the share of images that it is on and the share that it may be on: red where one surely is on more, clear
    where all surely are on no more than that, or on hardly any."""
    if any(share.n and share.low > allowed for share, allowed in signs):
        return "red"
    return "clear" if all(share.n and share.high <= max(allowed, RARE) for share, allowed in signs) else "unknown"


def unbounded(rows: pl.DataFrame) -> Doubt:
    """A ball that holds every image must give 100 % success."""
    rows = attacked(rows)
    failed = rows.height - int(rows["success"].sum())
    return Doubt(
        "Does an unbounded attack break every image?",
        f"{rows.height - failed} of {rows.height} broken",
        _verdict((rate(failed, rows.height), 0.0)),
    )


def larger_epsilon(curve: dict[float, pl.DataFrame]) -> Doubt:
    """More room must never help less, beyond a few images of chance."""
    frames = [curve[epsilon] for epsilon in sorted(curve)]
    pairs = [_paired(near, far) for near, far in pairwise(frames)]
    hits = (f"{epsilon:g}: {int(attacked(curve[epsilon])['success'].sum())}" for epsilon in sorted(curve))
    kept = max((lost for lost, _, _ in pairs), default=0)
    return Doubt(
        "Does a larger epsilon ever help less?",
        f"images broken by epsilon: {', '.join(hits)}; by one and not by the next larger at most {kept}",
        _verdict(*((rate(lost, n), COMMON) for lost, _, n in pairs)) if pairs else "unknown",
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
    gain = mean(ratio.to_numpy())
    return Doubt(
        "Has the minimum-norm search converged?",
        f"of {rows.height} images {never} were never broken and {late} only in the last round, which shortened the other "
        f"perturbations by {100 * gain.value if gain.n else 0:.1f} % on average",
        _verdict((rate(never + late, rows.height), 0.0), (gain, RARE)),
    )


def slack(at_attack: pl.DataFrame) -> Doubt:
    """Pulled back by 5 %, a minimal adversarial image must no longer be one."""
    rows = at_attack.filter(pl.col("attack_success") & (pl.col("scale") == PULLED_BACK))
    still = rate(rows.filter(fooled()).height, rows.height)
    return Doubt(
        "Are the perturbations minimal?",
        f"pulled back by 5 %, {still.percent} still fool the net",
        _verdict((still, 0.05)),
    )


def gradients(rows: pl.DataFrame) -> Doubt:
    """Zero or non-finite gradients are a sign of masking; the attack with the largest share of them counts."""
    asked = rows.filter(pl.col("gradient_calls") > 0)
    asked = asked.with_columns(zero=pl.col("zero_gradients") / pl.col("gradient_calls"))
    shares = [mean(part["zero"].to_numpy()) for part in asked.partition_by(ATTACK)]
    worst = max((share.value for share in shares), default=0.0)
    return Doubt(
        "Are gradients zero or not finite?",
        f"{int(asked['zero_gradients'].sum())} of {int(asked['gradient_calls'].sum())} gradients; in the worst attack "
        f"{100 * worst:.1f} % of an image's, on average",
        _verdict(*((share, COMMON) for share in shares)) if shares else "unknown",
    )


def transfer(own: pl.DataFrame, other: pl.DataFrame, what: str, where: str) -> Doubt:
    """Another attack, such as one with more steps or other gradients, must not break noticeably many images that the
    one it stands beside does not; nor, if both look for the smallest change, come nearer on many."""
    lost, gained, n = _paired(own, other)
    search = "epsilon" in own.columns and own["epsilon"].null_count() == own.height
    nearer, of = _nearer(own, other)
    near = f"; of {of} images that both break, the latter comes nearer by 5 % or more on {nearer}" if of else ""
    signs = [(rate(gained, n), COMMON), *([(rate(nearer, of), 0.1)] if search else [])]
    return Doubt(
        f'Does "{what}" break images that {where} does not?',
        f"{where} {success_text(own)}, {what} {success_text(other)}; {gained} images fall to the latter only, {lost} to "
        f"the former only{near}",
        _verdict(*signs),
    )


def solver_failures(judged: pl.DataFrame, crafted: pl.DataFrame) -> Doubt:
    """Abstentions are neither right nor fooled; many of them would hide behind both rates."""
    told = [rows.select(pl.col("image").cast(pl.String), failed=pl.col("status") != 0) for rows in (judged, crafted)]
    solves = pl.concat(told)
    images = solves.group_by("image").agg(pl.col("failed").any())
    failed = int(images["failed"].sum())
    return Doubt(
        "Did the solver fail on any image?",
        f"in {int(solves['failed'].sum())} of {solves.height} solves, on {failed} of {images.height} images",
        _verdict((rate(failed, images.height), 0.0)),
    )


def not_tried(question: str) -> Doubt:
    """A question that the rows cannot answer, since nobody asked."""
    return Doubt(question, "not tried", "unknown")


def any_open(doubts: list[Doubt]) -> bool:
    """Whether any doubt is red or unknown, so that a result must not be called robust."""
    return any(doubt.verdict != "clear" for doubt in doubts)
