"""The controls that a tolerance has to beat before it counts as a defense, computed from judged rows.

Minimum-norm adversarial images sit on the decision boundary, so *any* change flips some of them back. Dose-matched
noise is Gaussian input noise that moves the margins of clean images as much as the change of tolerance does: see `dose`.
"""

from itertools import pairwise

import numpy as np
import polars as pl

from odefend import dose
from odefend.dose import Beside, Doses
from odefend.evaluation.robustness import by_image


def doses(judged: pl.DataFrame, reference: float) -> Doses:
    """How far clean images' true margins move: by tolerance (from `reference`), and under noise.

    `judged` holds rows of clean images of one net: at several tolerances without noise, and under noise at `reference`.
    """
    still = judged.filter(pl.col("defense") == "tolerance")
    base = still.filter(pl.col("rtol") == reference).select("image", base="true_margin")

    def by(column: str, rows: pl.DataFrame) -> dict[float, np.ndarray]:
        """(images, draws) of absolute changes."""
        moved = rows.join(base, on="image").sort("image", "draw")
        moved = moved.with_columns(moved=(pl.col("true_margin") - pl.col("base")).abs())
        found = moved.partition_by(column, as_dict=True)
        return {key[0]: part["moved"].to_numpy().reshape(base.height, -1) for key, part in sorted(found.items())}

    changes = {tolerance: moved[:, 0] for tolerance, moved in by("rtol", still).items()}
    noisy = judged.filter((pl.col("defense") == "noise") & (pl.col("rtol") == reference))
    return Doses(changes, by("sigma", noisy))


def beside_noise(still: pl.DataFrame, noise: pl.DataFrame, matched: Doses, tolerance: float) -> Beside:
    """A tolerance against noise of its dose, on the images that the attack broke; `still`: their rows at that tolerance, `noise`:
    under noise of any strength."""
    back = by_image(still.filter("attack_success"))
    columns = {
        sigma: back.join(by_image(part.filter("attack_success")), on="image", how="left", suffix="_noise")[
            "correct_noise"
        ]
        for (sigma,), part in noise.partition_by("sigma", as_dict=True).items()
    }
    by_noise = {float(str(sigma)): column.to_numpy() for sigma, column in columns.items() if not column.null_count()}
    return dose.beside(matched, tolerance, back["correct"].to_numpy(), by_noise)


def strongest(judged: pl.DataFrame) -> float:
    """The standard deviation of the noise that clean images, and pushed ones, were judged under: the strongest of those that were
    matched."""
    noise = judged.filter((pl.col("defense") == "noise") & (pl.col("experiment") != "doses"))
    clean = noise.filter(pl.col("experiment") == "clean under noise")
    return float(str((clean if clean.height else noise)["sigma"].max() or 0.0))


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
