"""Certified accuracy: what randomized smoothing proves (Cohen et al., arXiv 1902.02918), and the most that it could."""

import polars as pl
from scipy.stats import norm

from odefend.metrics.rows import Rows


def certified(rows: Rows) -> pl.DataFrame:
    """For each image whether the smoothed answer is right and proven within the cell's radius: nothing for a radius that its draws
    could not prove in the image, however they fell."""
    some = rows.certified
    in_state = pl.col("defense").cast(pl.String).str.contains('"where":"state"', literal=True)
    most = [sigma * provable(draws, alpha) for sigma, draws, alpha in some.select("sigma", "draws", "alpha").rows()]
    some = some.filter(in_state | (pl.Series(most, dtype=pl.Float64) > rows.radius))
    held = pl.col("correct") & (pl.col("radius") > rows.radius)
    return some.group_by("image").agg(value=held.cast(pl.Float64).mean())


def provable(draws: int, alpha: float) -> float:
    """The largest radius that so many draws can prove at level alpha, in standard deviations of the noise: where all of them
    agree."""
    return float(norm.ppf(alpha ** (1 / draws)))
