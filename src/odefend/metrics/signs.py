"""Signs of a weak attack: single checks, each of the rows that it is about.

After Carlini et al. 2019 (arXiv 1902.06705), Athalye et al. 2018 (arXiv 1802.00420) and Pintor et al. 2022
(arXiv 2106.09947). A check failed when a sign of a weak attack is there: on more of the images than may be by chance, by the 95 %
interval. It passed when the sign was looked for and is, by the same interval, on hardly any image. It is unknown when nobody
looked, or on too few images to tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import polars as pl

from odefend.intervals import Interval, mean, rate
from odefend.metrics.rows import attacked, fooled

Outcome = Literal["passed", "failed", "unknown"]
Frames = Mapping[str, pl.DataFrame]
"""Crafted rows by the name of their attack."""

RARE, COMMON = 0.02, 0.01
"""Shares of images that a sign may be on: a check passed where it is surely on fewer than the first, and failed where it is surely
on more than the second. Two attacks of the same strength differ by their random starts as well."""

PULLED_BACK = 0.95
"""A minimal adversarial image is none any more when its perturbation is multiplied by this."""

NEARER = 0.1
"""The share of images on which another search may come nearer by 5 %."""

MORE = "Twice the work breaks no more images"
GRADIENTS = "Other gradients of the same net break no more images"
OTHER_NET = "Gradients of another net break no more images"
NONE = "An attack without gradients breaks no more images"
DRAWS = "More draws of the attacker break no more images"
LARGER = "A larger radius never breaks fewer images"
UNBOUNDED = "An attack without bound breaks every image"
CONVERGED = "The search has converged"
MINIMAL = "The perturbations are minimal"
OTHER_SEARCH = "No other search comes nearer"
MASKED = "Gradients are neither zero nor infinite"
ANSWERS = "The solver answers for every image"
ALONE = "No answer depends on the other images of its batch"
UNSEEN = "Random answers are judged by draws that no attack has seen"


@dataclass(frozen=True)
class Check:
    """What should hold, what the rows say of it, and whether it holds: of a model at a point."""

    statement: str
    finding: str
    outcome: Outcome
    model: str = ""
    where: str = ""


def not_tried(statement: str, finding: str = "not tried") -> Check:
    """What the rows cannot tell, since nobody asked."""
    return Check(statement, finding, "unknown")


def by_attack(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Crafted rows by the name of their attack."""
    return {str(name): part for (name,), part in rows.partition_by("attack", maintain_order=True, as_dict=True).items()}


def compared(statement: str, asked: Mapping[Any, tuple[Frames, Frames]], must: float | None) -> Check:
    """Attacks must not break noticeably many images that those which they stand beside do not, at any radius; the radius `must`
    has to be among those that were asked about."""
    told, signs = list[str](), list[tuple[Interval, float]]()
    for radius, (others, base) in asked.items():
        if others and base:
            text, share = _beside(others, base)
            told.append(text if radius is None or len(asked) == 1 else f"radius {radius:g}: {text}")
            signs.append((share, COMMON))
    if not signs or not all(asked[must]):
        return not_tried(statement, "; ".join([*told, "not tried" + ("" if not told else f" at radius {must:g}")]))
    return Check(statement, "; ".join(told), outcome(*signs))


def _beside(others: Frames, base: Frames) -> tuple[str, Interval]:
    """What attacks break that others do not, in words and as a share, of the images that all were tried on."""
    both = broken(others).join(broken(base), on="image", suffix="_base")
    gained = both.filter(pl.col("broken") & ~pl.col("broken_base")).height
    lost = both.filter(~pl.col("broken") & pl.col("broken_base")).height
    shares = [rate(int(both[name].sum()), both.height).percent for name in ("broken", "broken_base")]
    names = " and ".join(others), " and ".join(base)
    text = (
        f"{names[0]} {shares[0]}, {names[1]} {shares[1]}; {gained} fall to the former only, {lost} to the latter only"
    )
    return text, rate(gained, both.height)


def broken(frames: Frames) -> pl.DataFrame:
    """For each image that all of some attacks were tried on, whether any broke it."""
    every = pl.concat(attacked(made).select("image", "success", name=pl.lit(name)) for name, made in frames.items())
    each = every.group_by("image").agg(broken=pl.col("success").any(), tried=pl.col("name").n_unique())
    return each.filter(pl.col("tried") == len(frames)).drop("tried")


def outcome(*signs: tuple[Interval, float]) -> Outcome:
    """Of signs, each with the share of images that it is on and the share that it may be on: failed where one surely is on more,
    passed where all surely are on no more than that, or on hardly any."""
    if any(share.n and share.low > allowed for share, allowed in signs):
        return "failed"
    return "passed" if all(share.n and share.high <= max(allowed, RARE) for share, allowed in signs) else "unknown"


def unbounded(whole: Sequence[pl.DataFrame]) -> Check:
    """A ball that holds every image must give 100 % success to one of the attacks in it."""
    each = (
        pl.concat(attacked(rows).select("image", "success") for rows in whole)
        .group_by("image")
        .agg(pl.col("success").any())
    )
    failed = each.height - int(each["success"].sum())
    return Check(
        UNBOUNDED, f"{each.height - failed} of {each.height} broken", outcome((rate(failed, each.height), 0.0))
    )


def larger_radius(curves: Sequence[Mapping[float, pl.DataFrame]]) -> Check:
    """More room must never help less, beyond a few images of chance. `curves`: for each attack its rows by radius."""
    told, signs = list[str](), list[tuple[Interval, float]]()
    for curve in curves:
        frames = [attacked(curve[radius]) for radius in sorted(curve)]
        both = [near.join(far, on="image", suffix="_far") for near, far in pairwise(frames)]
        lost = [pair.filter(pl.col("success") & ~pl.col("success_far")).height for pair in both]
        signs += [(rate(one, pair.height), COMMON) for one, pair in zip(lost, both, strict=True)]
        hits = ", ".join(
            f"{radius:g}: {int(made['success'].sum())}" for radius, made in zip(sorted(curve), frames, strict=True)
        )
        told.append(f"images broken by radius: {hits}; by one and not by the next at most {max(lost, default=0)}")
    return Check(LARGER, "; ".join(told), outcome(*signs)) if signs else not_tried(LARGER)


def converged(search: pl.DataFrame) -> Check:
    """The last round of a search for the smallest perturbation must not shorten them noticeably any more, and no image may be left
    over: there is no bound on their size."""
    rows = attacked(search)
    never = rows.height - int(rows["success"].sum())
    found = rows.filter(pl.col("success") & (pl.col("history").list.len() >= 2))
    before, after = found["history"].list.get(-2, null_on_oob=True), found["history"].list.last()
    late = int(before.is_infinite().sum()) if found.height else 0
    ratio = ((before - after) / before).filter(before.is_finite()) if found.height else pl.Series([], dtype=pl.Float64)
    gain = mean(ratio.to_numpy())
    return Check(
        CONVERGED,
        f"of {rows.height} images {never} were never broken and {late} only in the last round, which shortened the other "
        f"perturbations by {100 * gain.value if gain.n else 0:.1f} % on average",
        outcome((rate(never + late, rows.height), 0.0), (gain, RARE)),
    )


def minimal(judged: pl.DataFrame) -> Check:
    """Pulled back by 5 %, a minimal adversarial image must no longer be one."""
    rows = judged.filter(pl.col("attack_success") & (pl.col("scale") == PULLED_BACK))
    if not rows.height:
        return not_tried(MINIMAL)
    still = rate(rows.filter(fooled()).height, rows.height)
    return Check(MINIMAL, f"pulled back by 5 %, {still.percent} still fool the net", outcome((still, 0.05)))


def nearer(search: pl.DataFrame, others: Frames) -> Check:
    """Another search must not come nearer by 5 % or more on many images, nor break noticeably many that this one does not."""
    text, gained = _beside(others, {"this one": search})
    hits = attacked(search).filter("success").select("image", "distance")
    theirs = pl.concat(attacked(made).filter("success").select("image", other="distance") for made in others.values())
    both = hits.join(theirs.group_by("image").agg(pl.col("other").min()), on="image")
    count = both.filter(pl.col("other") <= 0.95 * pl.col("distance")).height
    text += f"; of {both.height} images that both break, the former comes nearer by 5 % or more on {count}"
    return Check(OTHER_SEARCH, text, outcome((gained, COMMON), (rate(count, both.height), NEARER)))


def gradients(crafted: pl.DataFrame) -> Check:
    """Zero or non-finite gradients are a sign of masking; the attack with the largest share of them counts."""
    asked = crafted.unique(["key", "image"], maintain_order=True).filter(pl.col("gradient_calls") > 0)
    asked = asked.with_columns(zero=pl.col("zero_gradients") / pl.col("gradient_calls"))
    shares = [
        mean(part["zero"].to_numpy())
        for part in asked.partition_by("attack", "epsilon", "source", "source_rtol", "source_gradient")
    ]
    worst = max((share.value for share in shares), default=0.0)
    return Check(
        MASKED,
        f"{int(asked['zero_gradients'].sum())} of {int(asked['gradient_calls'].sum())} gradients are; in the worst attack "
        f"{100 * worst:.1f} % of an image's, on average",
        outcome(*((share, COMMON) for share in shares)) if shares else "unknown",
    )


def solver_failures(judged: pl.DataFrame, crafted: pl.DataFrame) -> Check:
    """Abstentions are neither right nor fooled; many of them would hide behind both rates."""
    told = [rows.select(pl.col("image").cast(pl.String), failed=pl.col("status") != 0) for rows in (judged, crafted)]
    solves = pl.concat(told)
    images = solves.group_by("image").agg(pl.col("failed").any())
    failed = int(images["failed"].sum())
    finding = (
        f"it gave up {int(solves['failed'].sum())} of {solves.height} solves, on {failed} of {images.height} images"
    )
    return Check(ANSWERS, finding, outcome((rate(failed, images.height), 0.0)))


def coupling(crafted: pl.DataFrame) -> Check:
    """One step size for a whole batch makes an image's answer depend on what it is shown with."""
    alone = not (crafted["coupling"] == "batch").any()
    return Check(ALONE, f"one step size for each {'image' if alone else 'batch'}", "passed" if alone else "failed")
