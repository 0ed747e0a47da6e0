"""The controls that a tolerance has to beat before it counts as a defense, computed from judged rows.

Minimum-norm adversarial images sit on the decision boundary, so *any* change flips some of them back. Dose-matched
noise is Gaussian input noise that moves the margins of clean images as much as the change of tolerance does.
"""

from itertools import pairwise

import numpy as np
import polars as pl


def doses(judged: pl.DataFrame, reference: float) -> tuple[dict[float, float], dict[float, float]]:
    """Root mean square change of clean images' true margins: by tolerance (from `reference`), and by sigma of noise.

    `judged` holds rows of clean images of one net: at several tolerances without noise, and under noise at `reference`.
    """
    still = judged.filter(pl.col("defense").is_null())
    base = still.filter(pl.col("rtol") == reference).select("image", base="true_margin")

    def by(column: str, rows: pl.DataFrame) -> dict[float, float]:
        moved = (
            rows.join(base, on="image")
            .group_by(column)
            .agg(dose=(pl.col("true_margin") - pl.col("base")).pow(2).mean().sqrt())
            .sort(column)
        )
        return dict(zip(moved[column].to_list(), moved["dose"].to_list(), strict=True))

    return by("rtol", still), by("sigma", judged.filter(pl.col("sigma").is_not_null() & (pl.col("rtol") == reference)))


def matched_sigma(dose: float, by_sigma: dict[float, float]) -> float:
    """The noise whose dose is `dose`, by interpolation between logarithms; below the grid, dose is linear in sigma.

    Above the grid the largest sigma is returned: the control is then weaker than it should be, never stronger.
    """
    sigmas, found = np.array(sorted(by_sigma)), np.array([by_sigma[sigma] for sigma in sorted(by_sigma)])
    if dose <= found[0]:
        return float(sigmas[0] * dose / found[0])
    return float(np.exp(np.interp(np.log(dose), np.log(found), np.log(sigmas))))


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
