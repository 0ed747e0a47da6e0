"""The controls that a tolerance has to beat before it counts as a defense, computed from judged rows.

Minimum-norm adversarial images sit on the decision boundary, so *any* change flips some of them back. Dose-matched
noise is Gaussian input noise that moves the margins of clean images as much as the change of tolerance does: see `dose`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl

from odefend.dose import RESAMPLES, Beside, Doses, beside, matched_sigma
from odefend.errors import InvalidInput
from odefend.intervals import NO_DATA, Interval
from odefend.metrics.measures import Computed, Metric, recovered
from odefend.metrics.rows import Rows


def doses(judged: pl.DataFrame, reference: float) -> Doses:
    """How far clean images' true margins move: by tolerance (from `reference`), and under noise.

    `judged` holds rows of clean images of one net: at several tolerances without noise, and under noise at `reference`.
    """
    still = judged.filter(pl.col("defense").is_null())
    base = still.filter(pl.col("rtol") == reference).select("image", base="true_margin")

    def by(column: str, rows: pl.DataFrame) -> dict[float, np.ndarray]:
        """(images, draws) of absolute changes."""
        moved = rows.join(base, on="image").sort("image", "draw")
        moved = moved.with_columns(moved=(pl.col("true_margin") - pl.col("base")).abs())
        found = moved.partition_by(column, as_dict=True)
        return {key[0]: part["moved"].to_numpy().reshape(base.height, -1) for key, part in sorted(found.items())}

    changes = {tolerance: moved[:, 0] for tolerance, moved in by("rtol", still).items()}
    return Doses(changes, by("sigma", judged.filter(pl.col("sigma").is_not_null() & (pl.col("rtol") == reference))))


def equal_noise(rows: Rows, model: str, reference: str, noise: str) -> list[float]:
    """The standard deviation, to three digits, of input noise that moves the margins of clean images from those of `reference` as
    much as the step to `model` does, found between those of the model `noise`; empty where there are no rows of `model`."""
    base = rows.where({"model": reference}).judged.select("image", base="true_margin")
    far = (pl.col("true_margin") - pl.col("base")).abs().fill_nan(float("inf"))
    moved = rows.judged.join(base, on="image").with_columns(moved=far)
    ours, by_noise = moved.filter(pl.col("model") == model), moved.filter(pl.col("model") == noise)
    levels = {sigma: float(part["moved"].median()) for (sigma,), part in by_noise.group_by("sigma")}  # type: ignore[arg-type]
    if not ours.height:
        return []
    return [float(f"{matched_sigma(float(ours['moved'].median()), levels):.3g}")]  # type: ignore[arg-type]


def half_recovery(recovery: dict[float, float]) -> float:
    """s50: how far adversarial images must be pushed, as a factor of their perturbation, until no more than half of
    what was recovered at s = 1 is; inf if never on the measured curve, 1 if nothing was recovered at all."""
    scales = sorted(scale for scale in recovery if scale >= 1)
    half = recovery[scales[0]] / 2
    if half == 0:
        return 1.0
    for low, high in pairwise(scales):
        if recovery[high] <= half:
            share = (recovery[low] - half) / (recovery[low] - recovery[high])
            return low + share * (high - low)
    return float("inf")


def s50(rows: Rows) -> Interval:
    """`half_recovery` of the scales that a cell has, with its percentile bootstrap interval over images."""
    scales = sorted(scale for scale in rows.judged["scale"].drop_nulls().unique() if scale >= 1)
    parts = [recovered(rows.where({"scale": scale})).sort("image")["value"].to_numpy() for scale in scales]
    if not parts or not len(parts[0]) or not parts[0].any():
        return NO_DATA
    curves, count = np.stack(parts, 1), len(parts[0])
    picks = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    drawn = [half_recovery(dict(zip(scales, curve, strict=True))) for curve in curves[picks].mean(1)]
    low, high = np.percentile(drawn, [2.5, 97.5], method="nearest")
    return Interval(half_recovery(dict(zip(scales, curves.mean(0), strict=True))), float(low), float(high), count)


@dataclass(frozen=True)
class EqualDose(Metric):
    """What a tolerance recovers beside noise of equal dose: of rows at one tolerance, and of others under noise at that of the
    attack. Both have the images of an attack, and clean calibration images that tell the dose; the others have these without noise
    as well. `what`: the noise's standard deviation, the share that it recovers, or the tolerance's share minus that."""

    what: Literal["sigma", "recovered", "difference"]
    show: str
    alone = False

    def of(self, rows: Rows) -> Interval:
        raise InvalidInput(
            f"metric: expected other rows under noise beside the {rows.judged.height} of a tolerance, got none."
        )

    def minus(self, rows: Rows, others: Rows) -> Interval:
        return self.beside(rows, others)

    def beside(self, rows: Rows, others: Rows) -> Interval:
        tolerances, references = (some.judged["rtol"].drop_nulls().unique().to_list() for some in (rows, others))
        if len(tolerances) != 1 or len(references) != 1:
            return NO_DATA
        found = doses(pl.concat([_clean(rows), _clean(others)]).unique(maintain_order=True), references[0])
        by_noise = _shares(others, recovered(rows)["image"])
        if not by_noise or tolerances[0] not in found.changes:
            return NO_DATA
        return self._number(found, tolerances[0], recovered(rows).sort("image")["value"].to_numpy(), by_noise)

    def _number(
        self, found: Doses, tolerance: float, back: np.ndarray, by_noise: Mapping[float, np.ndarray]
    ) -> Interval:
        if self.what == "sigma":
            low, high = np.percentile(found.resampled(tolerance), [2.5, 97.5])
            return Interval(found.sigma(tolerance), float(low), float(high), len(back))
        equal: Beside = beside(found, tolerance, back, by_noise)
        return equal.recovered if self.what == "recovered" else equal.difference


def _clean(rows: Rows) -> pl.DataFrame:
    return rows.judged.filter(pl.col("kind") == "clean")


def _shares(rows: Rows, images: pl.Series) -> dict[float, np.ndarray]:
    """For noise of each standard deviation the share of draws in which each of some images is right again."""
    found = {}
    for (sigma,), part in sorted(
        rows.judged.filter(pl.col("sigma").is_not_null(), "attack_success").partition_by("sigma", as_dict=True).items()
    ):
        both = (
            images.sort()
            .to_frame()
            .join(part.group_by("image").agg(pl.col("correct").cast(pl.Float64).mean()), on="image", how="left")
        )
        column = both.sort("image")["correct"]
        if not column.null_count() and len(column):
            found[float(str(sigma))] = column.to_numpy()
    return found


CONTROLS: Mapping[str, Metric] = {
    "s50": Computed(s50, "3"),
    "noise of equal dose": EqualDose("sigma", "4"),
    "recovered by noise of equal dose": EqualDose("recovered", "percent"),
    "recovered minus noise of equal dose": EqualDose("difference", "points"),
}
