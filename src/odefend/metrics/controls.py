"""The controls that a tolerance has to beat before it counts as a defense, computed from judged rows.

Minimum-norm adversarial images sit on the decision boundary, so *any* change flips some of them back. Dose-matched
noise is Gaussian input noise that moves the margins of clean images as much as the change of tolerance does: see `dose`.
"""

from itertools import pairwise

import numpy as np
import polars as pl

from odefend.dose import Doses


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
