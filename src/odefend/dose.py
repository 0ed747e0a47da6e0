"""Noise of equal dose: input noise that moves the margins of clean images as much as some other change does.

A dose is the median over images (and draws of noise) of how far the true margin moves. A root mean square would be decided by the
few images that lie where anything moves them far. What is matched is an estimate: `Doses.resampled` carries its uncertainty into
whatever is compared with the noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from odefend import intervals
from odefend.intervals import Interval

RESAMPLES = 2000


@dataclass(frozen=True)
class Doses:
    """How far margins of the same clean images move: by each change, (images,), and under noise of each standard deviation,
    (images, draws). Absolute values; infinite or no number where an answer was given up, which counts as far."""

    changes: Mapping[float, np.ndarray]
    noise: Mapping[float, np.ndarray]

    @property
    def largest(self) -> float:
        """The strongest noise that was tried."""
        return max(self.noise)

    def sigma(self, *changes: float) -> float:
        """The standard deviation of noise of the same dose as these changes together: see `matched_sigma`."""
        moved = np.concatenate([self.changes[change] for change in changes])
        return matched_sigma(float(_median(moved)), {s: float(_median(moved)) for s, moved in self.noise.items()})

    def resampled(self, change: float) -> np.ndarray:
        """The same for one change, for each of RESAMPLES bootstrap samples of the images."""
        doses = _median(self.changes[change][self._picks], 1)
        curves = (dict(zip(self._sigmas, curve, strict=True)) for curve in self._curves)
        return np.array([matched_sigma(dose, curve) for dose, curve in zip(doses, curves, strict=True)])

    @cached_property
    def _sigmas(self) -> list[float]:
        return sorted(self.noise)

    @cached_property
    def _picks(self) -> np.ndarray:
        count = len(next(iter(self.changes.values())))
        return np.random.default_rng(0).integers(0, count, (RESAMPLES, count))

    @cached_property
    def _curves(self) -> np.ndarray:
        """The dose of each noise in each sample: (RESAMPLES, noises)."""
        by_noise = [_median(self.noise[sigma][self._picks].reshape(RESAMPLES, -1), 1) for sigma in self._sigmas]
        return np.stack(by_noise, 1)


def matched_sigma(dose: float, by_sigma: Mapping[float, float]) -> float:
    """The noise whose dose is `dose`, by interpolation between logarithms; below the weakest, dose is linear in sigma.

    Above the strongest that is returned: the control is then weaker than it should be, never stronger.
    """
    sigmas = sorted(by_sigma)
    known = [
        (s, d) for s, d in zip(sigmas, accumulate((by_sigma[s] for s in sigmas), max), strict=True) if 0 < d < np.inf
    ]
    if not known:
        return sigmas[-1]
    levels, found = (np.array(part) for part in zip(*known, strict=True))
    if dose <= found[0]:
        return float(levels[0] * dose / found[0])
    return float(np.exp(np.interp(np.log(dose), np.log(found), np.log(levels))))


@dataclass(frozen=True)
class Beside:
    """What a change recovers beside noise of its dose: the noise's standard deviation, the share that the noise recovers, and the
    change's share minus that."""

    sigma: float
    recovered: Interval
    difference: Interval


def beside(doses: Doses, change: float, recovered: np.ndarray, by_noise: Mapping[float, np.ndarray]) -> Beside:
    """A change against noise of its dose, on the same attacked images: shares of draws in which each is right again, (images,),
    under the change and under noise of each standard deviation that was measured, between which shares are interpolated; without
    noise none is right. Intervals: percentiles of a bootstrap over the clean images, of which the dose is, and the attacked.

    Where the dose may ask for stronger noise than any that was judged, nothing says that such noise would not recover every image:
    its interval then ends at 1, and no change is found to recover more."""
    sigmas = sorted(by_noise)
    noise, count = np.stack([by_noise[sigma] for sigma in sigmas], 1), len(recovered)
    drawn = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    matched, weights = doses.sigma(change), _weights(np.array([doses.sigma(change)]), sigmas)[0]
    resampled = doses.resampled(change)
    noisy = (_weights(resampled, sigmas) * (drawn @ noise)).sum(1)
    share = _bounded(noise @ weights, noisy)
    difference = _bounded(recovered - noise @ weights, drawn @ recovered - noisy)
    if np.percentile(resampled, 97.5) >= min(doses.largest, sigmas[-1]) * (1 - 1e-9):
        share, difference = replace(share, high=1.0), replace(difference, low=float(recovered.mean()) - 1)
    return Beside(matched, share, difference)


def _bounded(values: np.ndarray, resampled: np.ndarray) -> Interval:
    """The mean with percentiles of what it is in samples; what never varies has an interval as `intervals.mean_difference` has."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    if high - low < 1e-9:
        return intervals.mean_difference(values, np.zeros_like(values))
    return Interval(float(values.mean()), float(low), float(high), len(values))


def _median(moved: np.ndarray, axis: int | None = None) -> Any:
    return np.median(np.nan_to_num(moved, nan=np.inf), axis=axis)


def _weights(wanted: np.ndarray, sigmas: list[float]) -> np.ndarray:
    """Weights (wanted, sigmas) that interpolate between logarithms, and below the least, linearly from nothing at 0."""
    known = np.array(sigmas)
    at = np.clip(np.searchsorted(known, wanted), 1, max(1, len(known) - 1))
    weights, rows = np.zeros((len(wanted), len(known))), np.arange(len(wanted))
    clipped = np.log(np.clip(wanted, known[0], known[-1]))
    if len(known) == 1:
        weights[:, 0] = 1.0
    else:
        low, high = np.log(known[at - 1]), np.log(known[at])
        weights[rows, at] = (clipped - low) / (high - low)
        weights[rows, at - 1] = 1 - weights[rows, at]
    return weights * np.minimum(1.0, wanted / known[0])[:, None]
