"""Metrics by name: what the cells of tables, the points of figures and the sides of claims are.

Most give one number for each image. Intervals, paired differences and paired ratios follow from that alone, in one way for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from odefend import intervals
from odefend.errors import InvalidInput
from odefend.intervals import Interval
from odefend.metrics.certified import certified
from odefend.metrics.detection import precision, threshold
from odefend.metrics.rows import Rows, attacked, fooled


def share(values: np.ndarray) -> Interval:
    """The mean of numbers in [0, 1]: a rate where each is 0 or 1."""
    return intervals.rate(int(values.sum()), len(values)) if np.isin(values, (0, 1)).all() else intervals.mean(values)


class Metric(ABC):
    """A number of the rows of a cell, with its interval; `show` is how tables show it, and `alone` whether it is one of rows
    without others beside them."""

    show: str
    alone: ClassVar[bool] = True

    @abstractmethod
    def of(self, rows: Rows) -> Interval:
        """The number."""

    def minus(self, rows: Rows, others: Rows) -> Interval:  # noqa: ARG002
        """The difference from that of other rows, paired. Raises InvalidInput where the metric has none."""
        raise InvalidInput(f"minus: expected a metric of single images or an area, got {type(self).__name__}.")

    def over(self, rows: Rows, others: Rows) -> Interval:  # noqa: ARG002
        """The ratio to that of other rows, paired. Raises InvalidInput where the metric has none."""
        raise InvalidInput(f"over: expected a metric of single images, got {type(self).__name__}.")

    def beside(self, rows: Rows, others: Rows) -> Interval:  # noqa: ARG002
        """The number of both together. Raises InvalidInput where the metric is of one."""
        raise InvalidInput(f"both: expected a metric of two kinds of rows, got {type(self).__name__}.")


@dataclass(frozen=True)
class Computed(Metric):
    """A study's own function of rows."""

    function: Callable[[Rows], Interval]
    show: str = "percent"

    def of(self, rows: Rows) -> Interval:
        return self.function(rows)


def largest(values: np.ndarray) -> Interval:
    """The largest of them, which is what it is for these images."""
    return (
        Interval(float(values.max()), float(values.max()), float(values.max()), len(values))
        if len(values)
        else intervals.NO_DATA
    )


@dataclass(frozen=True)
class PerImage(Metric):
    """A metric that gives each image a number: `each` makes rows of `image` and `value` of those of a cell. Differences are means
    of differences, and ratios those of means (of medians, medians of ratios), over the images that both have."""

    each: Callable[[Rows], pl.DataFrame]
    show: str = "percent"
    estimate: Callable[[np.ndarray], Interval] = share

    def of(self, rows: Rows) -> Interval:
        return self.estimate(self.each(rows).sort("image")["value"].to_numpy())

    def minus(self, rows: Rows, others: Rows) -> Interval:
        return intervals.mean_difference(*self._paired(rows, others))

    def over(self, rows: Rows, others: Rows) -> Interval:
        ours, theirs = self._paired(rows, others)
        if self.estimate is intervals.median:
            finite = np.isfinite(ours) & np.isfinite(theirs)
            return intervals.median(ours[finite] / theirs[finite])
        return intervals.mean_ratio(ours, theirs)

    def _paired(self, rows: Rows, others: Rows) -> tuple[np.ndarray, np.ndarray]:
        both = self.each(rows).join(self.each(others), on="image", suffix="_other").sort("image")
        return both["value"].to_numpy(), both["value_other"].to_numpy()


@dataclass(frozen=True)
class Area(Metric):
    """The area under the ROC of a detector: attacked images that fool the model against clean ones."""

    show: str = "3"

    def of(self, rows: Rows) -> Interval:
        return intervals.auroc(*scores(rows))

    def minus(self, rows: Rows, others: Rows) -> Interval:
        by = ["kind", "crafted", "scale", "image"]
        both = _fooling(rows).join(_fooling(others), on=by, suffix="_other", nulls_equal=True).sort(by)
        clean = pl.col("kind") == "clean"
        sides = [both.filter(part)[name].to_numpy() for name in ("score", "score_other") for part in (clean, ~clean)]
        return intervals.auroc_difference(sides[0], sides[1], sides[2], sides[3])


def scores(rows: Rows, scale: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(scores of clean images, scores of attacked ones that fool the model), of those at a scale if one is given."""
    scored = _fooling(rows)
    if scale is not None:
        scored = scored.filter((pl.col("kind") == "clean") | (pl.col("scale") == scale))
    clean = pl.col("kind") == "clean"
    return scored.filter(clean)["score"].to_numpy(), scored.filter(~clean)["score"].to_numpy()


def _fooling(rows: Rows) -> pl.DataFrame:
    """The scores of clean images and of those attacked ones that fooled the model they were made on."""
    scored = rows.scored.filter(pl.col("kind").is_in(["clean", "adversarial"]))
    broken = rows.crafted.filter(pl.col("success") & ~pl.col("initially_wrong"))
    broken = broken.select(pl.col("key").alias("crafted"), "image").unique()
    attacked_ones = scored.filter(pl.col("kind") == "adversarial").join(broken, on=["crafted", "image"], how="semi")
    return pl.concat([scored.filter(pl.col("kind") == "clean"), attacked_ones])


def _mean(rows: pl.DataFrame, value: pl.Expr) -> pl.DataFrame:
    return rows.group_by("image").agg(value=value.cast(pl.Float64).mean())


def _clean(rows: Rows) -> pl.DataFrame:
    return rows.judged.filter(pl.col("kind") == "clean")


def _adversarial(rows: Rows) -> pl.DataFrame:
    return rows.judged.filter(pl.col("kind") == "adversarial")


def _hits(rows: Rows, column: str) -> pl.DataFrame:
    """A number of each image that was broken, by an attack that knew a detector also past that."""
    broken = attacked(rows.crafted).filter("success")
    if rows.crafted["past"].is_not_null().any():
        broken = broken.join(evaded(rows).filter(pl.col("value") == 1), on="image", how="semi")
    return broken.group_by("image").agg(value=pl.col(column).min().cast(pl.Float64))


def _distances(rows: Rows) -> pl.DataFrame:
    """How far each image that the model had right was moved to break it; infinite where none of the attacks did."""
    far = pl.when("success").then("l2").otherwise(np.inf)
    return attacked(rows.crafted).group_by("image").agg(value=far.min().cast(pl.Float64))


def _answers(rows: Rows, judged: pl.Expr, certified: pl.Expr) -> pl.DataFrame:
    """A number of each answer that has one, whether a model or a smoothed one gave it."""
    both = (rows.judged.select("image", value=judged), rows.certified.select("image", value=certified))
    return _mean(pl.concat(both, how="vertical_relaxed").drop_nulls("value"), pl.col("value"))


def broken(rows: Rows) -> pl.DataFrame:
    """For each image that the model had right, whether an attack broke it: by the attacked model's own answer, or before the models
    that judged it; of random ones, the share of draws fooled by the worst attack (see `worst_draws`)."""
    return _worst(rows, pl.col("success"), fooled())


def lost(rows: Rows) -> pl.DataFrame:
    """Like `broken`, where an answer that was given up counts as well: abstention is lost accuracy, though no attack's success."""
    given_up = (pl.col("status") != 0) & pl.col("epsilon").is_not_null()
    return _worst(rows, pl.col("success") | given_up, ~pl.col("correct"))


def _worst(rows: Rows, own: pl.Expr, judged: pl.Expr) -> pl.DataFrame:
    """By what models judged, and of attacks whose images none of them judged, by the attacked model's own answer."""
    shown = _adversarial(rows).filter(~pl.col("initially_wrong"))
    alone = attacked(rows.crafted).join(
        shown.select("attack", "epsilon").unique(), on=["attack", "epsilon"], how="anti", nulls_equal=True
    )
    parts = [
        alone.group_by("image").agg(value=own.cast(pl.Float64).max()),
        *([worst_draws(shown, judged)] if shown.height else []),
    ]
    return pl.concat(part.select("image", "value") for part in parts).group_by("image").agg(pl.col("value").max())


def worst_draws(judged: pl.DataFrame, hit: pl.Expr) -> pl.DataFrame:
    """For each image the share of draws in which the worst attack hits the model.

    For each draw, the others tell which attack is the worst, since a draw that chooses cannot judge: the one that hits most of
    them, of equals the one that leaves the least margin. Where there is but one draw the answer is not random, and the worst attack
    is known.
    """
    by = ["image", "crafted", "scale"]
    shown = judged.select(*by, "draw", hit=hit.cast(pl.Float64), margin=pl.col("true_margin").fill_nan(0.0))
    drawn = shown["draw"].n_unique() > 1
    others = shown.with_columns(
        (pl.col(name).sum().over(by) - pl.col(name) * drawn).alias(f"{name}, others") for name in ("hit", "margin")
    )
    worst = others.sort("hit, others", "margin, others", *by, descending=[True, *[False] * 4])
    return _mean(worst.unique(["image", "draw"], keep="first", maintain_order=True), pl.col("hit"))


def right_before(rows: Rows) -> pl.DataFrame:
    """For each image that any attack of the cell was tried on, whether it is answered rightly when clean: by the judge, or where it
    judged none, by the attacked model."""
    clean = _clean(rows)
    right = _mean(clean, pl.col("correct")) if clean.height else _mean(rows.crafted, ~pl.col("initially_wrong"))
    return right.join(_tried(rows), on="image", how="semi")


def robust(rows: Rows) -> pl.DataFrame:
    """For each image that every attack of the cell was tried on, whether it is answered rightly when clean, and no attack changes
    that. An answer that was given up is not a right one."""
    return robust_anywhere(rows).join(attacked_or_wrong(rows), on="image", how="semi")


def robust_anywhere(rows: Rows) -> pl.DataFrame:
    """The same for each image that any attack was tried on, under those that were: an upper bound."""
    each = right_before(rows).join(lost(rows).rename({"value": "lost"}), on="image", how="left")
    return each.select("image", value=pl.min_horizontal("value", 1 - pl.col("lost").fill_null(1 - pl.col("value"))))


def right_under_attack(rows: Rows) -> pl.DataFrame:
    """For each attacked image that was shown to a model, the share of draws in which that is right under the worst attack."""
    return worst_draws(_adversarial(rows), ~pl.col("correct")).with_columns(value=1 - pl.col("value"))


def attacked_or_wrong(rows: Rows) -> pl.DataFrame:
    """The images that every attack of the cell was tried on."""
    tried = _tried(rows)
    count = tried.select("attack", "epsilon").n_unique()
    return tried.group_by("image").len().filter(pl.col("len") == count).select("image")


def _tried(rows: Rows) -> pl.DataFrame:
    """Each image with each attack of the cell that was tried on it, or shown to a judge."""
    by = ["image", "attack", "epsilon"]
    return pl.concat([rows.crafted.select(by), _adversarial(rows).select(by)]).unique()


def recovered(rows: Rows) -> pl.DataFrame:
    """For each image that fooled the attacked model, the share of draws in which the judge is right."""
    return _mean(_adversarial(rows).filter(pl.col("attack_success")), pl.col("correct"))


def level(rows: Rows) -> float:
    """The threshold that the calibration images set for the false alarms that are allowed."""
    return threshold(rows.scored.filter(pl.col("kind") == "calibration")["score"].to_numpy(), rows.allowed)


def evaded(rows: Rows) -> pl.DataFrame:
    """For each attacked image whether it fools the model and the detector accepts it: SR@FPR; of several attacks or scales in the
    cell, whether any does, on the images that all attacks were tried on. Of an attack that knew the detector, and was not shown to
    it again, its own success tells."""
    by, tried = ["crafted", "image"], attacked(rows.crafted).with_columns(crafted="key")
    tried = tried.join(attacked_or_wrong(rows), on="image", how="semi")
    scored = rows.scored.filter(pl.col("kind") == "adversarial")
    accepted = scored.group_by(by).agg(accepted=(pl.col("score") <= level(rows)).any())
    own = pl.when(pl.col("past").is_not_null()).then(True)
    both = tried.join(accepted, on=by, how="left").with_columns(pl.coalesce("accepted", own)).drop_nulls("accepted")
    return both.group_by("image").agg(value=(pl.col("success") & pl.col("accepted")).any().cast(pl.Float64))


def robust_with_rejection(rows: Rows) -> pl.DataFrame:
    """For each image whether it is answered rightly and accepted by the detector when clean, and no attack of the cell on both of
    them changes that."""
    accepted = _mean(rows.scored.filter(pl.col("kind") == "clean"), pl.col("score") <= level(rows))
    both = robust(rows).join(accepted, on="image", suffix="_accepted")
    return both.select("image", value=pl.min_horizontal("value", "value_accepted"))


def evaded_knowing(rows: Rows) -> pl.DataFrame:
    """The same of attacks one of which knows the detector: nothing where none was tried, for without it this is no worst case."""
    return evaded(rows if rows.crafted["past"].is_not_null().any() else rows.of_images(()))


def precise(rows: Rows) -> Interval:
    """The share of alarms that are attacks, where 1 % of all images is attacked; its bounds are those of `detected` and of `false
    alarms`, either at its worst for the other. No data without any alarm."""
    caught, wrong = METRICS["detected"].of(rows), METRICS["false alarms"].of(rows)
    value = precision(caught.value, wrong.value)
    if np.isnan(value):
        return intervals.NO_DATA
    return Interval(value, precision(caught.low, wrong.high), precision(caught.high, wrong.low), caught.n)


def alarms(kind: str) -> Callable[[Rows], pl.DataFrame]:
    """For each image of a kind whether the detector alarms."""

    def each(rows: Rows) -> pl.DataFrame:
        scored = _fooling(rows) if kind == "adversarial" else rows.scored
        return _mean(scored.filter(pl.col("kind") == kind), pl.col("score") > level(rows))

    return each


_WORK = pl.when(pl.col("nfe") > 0).then("nfe")
"""Evaluations of the vector field; none of a net that has none."""

METRICS: Mapping[str, Metric] = {
    "accuracy": PerImage(lambda rows: _mean(_clean(rows), pl.col("correct"))),
    "error": PerImage(lambda rows: _mean(_clean(rows), ~pl.col("correct"))),
    "abstention": PerImage(lambda rows: _answers(rows, pl.col("status") != 0, pl.col("prediction") < 0)),
    "success": PerImage(
        lambda rows: attacked(rows.crafted).group_by("image").agg(value=pl.col("success").cast(pl.Float64).max())
    ),
    "fooled": PerImage(broken),
    "accuracy under attack": PerImage(right_under_attack),
    "robust accuracy": PerImage(robust),
    "robust accuracy, all images": PerImage(robust_anywhere),
    "robust accuracy with rejection": PerImage(robust_with_rejection),
    "recovered": PerImage(recovered),
    "L2": PerImage(lambda rows: _hits(rows, "l2"), "3", intervals.mean),
    "median L2": PerImage(_distances, "3", intervals.median),
    "L-inf": PerImage(lambda rows: _hits(rows, "linf"), "3", intervals.mean),
    "MSE": PerImage(lambda rows: _hits(rows, "mse"), "5", intervals.mean),
    "gradients": PerImage(lambda rows: _mean(attacked(rows.crafted), pl.col("gradient_calls")), "0", intervals.mean),
    "forward passes": PerImage(
        lambda rows: _mean(attacked(rows.crafted), pl.col("forward_calls")), "0", intervals.mean
    ),
    "NFE": PerImage(lambda rows: _answers(rows, _WORK, _WORK), "1", intervals.mean),
    "largest NFE": PerImage(lambda rows: _mean(rows.judged, pl.col("nfe")), "plain", largest),
    "AUROC": Area(),
    "detected": PerImage(alarms("adversarial")),
    "false alarms": PerImage(alarms("clean")),
    "benign alarms": PerImage(alarms("benign")),
    "precision": Computed(precise),
    "evasion": PerImage(evaded),
    "adaptive evasion": PerImage(evaded_knowing),
    "passes": PerImage(lambda rows: _mean(rows.scored, pl.col("cost")), "plain", largest),
    "certified": PerImage(certified),
}
"""Metrics by name; a study may bring functions of its own."""
