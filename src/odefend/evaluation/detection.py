"""How well detectors tell attacked images from clean ones, from rows."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from odefend.detectors import Calibration, agreement
from odefend.detectors.base import MOST
from odefend.detectors.vote import ABSTAINED
from odefend.evaluation.ledger import Ledger, digest
from odefend.evaluation.schema import TABLES
from odefend.intervals import Interval, auroc, auroc_difference, rate

IMAGE = ["kind", "crafted", "scale", "image"]
VOTES = (5, 10, 20)


def score(ledger: Ledger, reference: float = 1e-3, evaluation: str = "", most: int = max(VOTES)) -> None:
    """Write rows of `scored` for the votes and the one-pass margin (at tolerance `reference`) of all judged images.

    The first V of an image's draws are its vote of V, up to `most`. Adversarial images count where the attack succeeded.
    """
    judged = ledger.read("judged", evaluation or None).filter((pl.col("kind") == "clean") | pl.col("attack_success"))
    judged = judged.with_columns(
        kind=pl.when(pl.col("split") == "validation").then(pl.lit("calibration")).otherwise("kind")
    )
    for name, experiment in (("tolerance vote", "tolerance vote"), ("noise vote", "noise vote")):
        rows = judged.filter(pl.col("experiment") == experiment)
        for votes in sorted({*VOTES, most}):
            if rows.height and votes <= rows["draw"].max() + 1:  # type: ignore[operator]
                _write(ledger, f"{name}, V = {votes}", votes, _ballots(rows, votes), evaluation)
    once = judged.filter(
        pl.col("experiment").is_in(["clean", "recovery", "doses"]) & (pl.col("defense") == "tolerance")
    )
    for net, rows in once.group_by("net", maintain_order=True):
        rows = rows.filter(pl.col("rtol").is_null() | (pl.col("rtol") == reference))
        _write(
            ledger,
            f"one-pass margin ({net[0]})",
            1,
            rows.with_columns(score=pl.when(pl.col("status") == 0).then(-pl.col("margin")).otherwise(pl.lit(MOST))),
            evaluation,
        )


def _ballots(rows: pl.DataFrame, votes: int) -> pl.DataFrame:
    """One row per image with its score V - v_agree."""
    rows = rows.filter(pl.col("draw") < votes).with_columns(
        vote=pl.when(pl.col("status") == 0).then(pl.col("prediction")).otherwise(ABSTAINED)
    )
    images = (
        rows.sort("draw")
        .group_by(IMAGE, maintain_order=True)
        .agg(
            pl.col("vote"),
            *(pl.col(name).first() for name in TABLES["scored"] if name in rows.columns and name not in IMAGE),
        )
    )
    agreed = agreement(torch.tensor(images["vote"].to_list()).reshape(-1, votes))
    return images.with_columns(score=pl.Series((votes - agreed).double().numpy()), rtol=None, atol=None)


def _write(ledger: Ledger, detector: str, cost: int, rows: pl.DataFrame, evaluation: str) -> None:
    if not rows.height:
        return
    kept = {
        name: rows[name].to_list()
        for name in TABLES["scored"]
        if name in rows.columns and name not in ("key", "schema_version")
    }
    key = digest({"detector": detector, "of": sorted(rows["key"].unique().to_list())})
    if not ledger.has("scored", key):
        ledger.write("scored", key, kept | {"detector": [detector] * rows.height, "cost": cost})
    ledger.label([("scored", key, evaluation, "detection", None)])


@dataclass(frozen=True)
class Detection:
    """A detector against one set of attacked images: area under the ROC, and alarms on attacked and on clean test images
    at a threshold that was set on calibration images."""

    area: Interval
    caught: Interval
    false_alarms: Interval


def detection(scored: pl.DataFrame, detector: str, scale: float, allowed: float = 0.05) -> Detection:
    """How well `detector` tells images attacked and pushed to `scale` from clean test images.

    The threshold is the conformal one for a share `allowed` of false alarms.
    """
    clean, attacked = samples(scored, detector, scale)
    level = threshold(scored, detector, allowed)
    return Detection(
        auroc(clean, attacked),
        rate(int((attacked > level).sum()), len(attacked)),
        rate(int((clean > level).sum()), len(clean)),
    )


def threshold(scored: pl.DataFrame, detector: str, allowed: float) -> float:
    """The conformal threshold that the clean calibration images set: above it an image alarms. Inf, and no alarm, where they
    are too few to tell so small a share (see `detectors.Calibration`)."""
    held_out = scored.filter((pl.col("detector") == detector) & (pl.col("kind") == "calibration"))["score"].to_numpy()
    if (len(held_out) + 1) * allowed < 1:
        return np.inf
    return Calibration(torch.tensor(held_out)).threshold(allowed)


def success_past(
    crafted: pl.DataFrame, scored: pl.DataFrame, detector: str, allowed: float, scale: float = 1.0
) -> Interval:
    """SR@FPR: the share of attacked images that fool the net and are accepted by the detector, at the threshold that
    refuses a share `allowed` of the clean calibration images. 1 minus this is the robust accuracy with reject of images that
    the net had right.

    `crafted`: the rows of one attack; `scored`: those of its images by this detector, at least where it succeeded.
    """
    tried = crafted.filter(~pl.col("initially_wrong"))
    scores = scored.filter(
        (pl.col("detector") == detector) & (pl.col("kind") == "adversarial") & (pl.col("scale") == scale)
    ).select("image", "score")
    both = tried.filter("success").join(scores, on="image")
    return rate(int((both["score"] <= threshold(scored, detector, allowed)).sum()), tried.height)


def precision(caught: float, false_alarms: float, prevalence: float = 0.01) -> float:
    """The share of alarms that are attacks, where a share `prevalence` of all images is attacked; nan without any alarm."""
    right, wrong = prevalence * caught, (1 - prevalence) * false_alarms
    return right / (right + wrong) if right + wrong else float("nan")


def area_difference(scored: pl.DataFrame, one: str, other: str, scale: float) -> Interval:
    """Area under the ROC of one detector minus that of another on the same images, paired."""
    clean = pl.col("kind") == "clean"
    attacked = (pl.col("kind") == "adversarial") & (pl.col("scale") == scale)
    by = [name for name in IMAGE if name in scored.columns]
    first, second = (
        scored.filter((pl.col("detector") == name) & (clean | attacked)).unique(by) for name in (one, other)
    )
    both = first.join(second, on=by, suffix="_other", nulls_equal=True).sort(by)
    return auroc_difference(
        both.filter(clean)["score"].to_numpy(),
        both.filter(attacked)["score"].to_numpy(),
        both.filter(clean)["score_other"].to_numpy(),
        both.filter(attacked)["score_other"].to_numpy(),
    )


def samples(scored: pl.DataFrame, detector: str, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(scores of clean images, scores of attacked images pushed to `scale`)."""
    rows = scored.filter(pl.col("detector") == detector)
    clean = rows.filter(pl.col("kind") == "clean")["score"].to_numpy()
    return clean, rows.filter((pl.col("kind") == "adversarial") & (pl.col("scale") == scale))["score"].to_numpy()


def acceptance(clean: np.ndarray, attacked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC in the convention of Carrara et al. (ICPR-W 2020): (attacked images accepted, clean images accepted), an
    image being accepted where its score is at most the threshold."""
    levels = np.unique(np.r_[-np.inf, clean, attacked, np.inf])
    return (
        np.array([(attacked <= level).mean() for level in levels]),
        np.array([(clean <= level).mean() for level in levels]),
    )
