"""Confidence intervals: every rate and area under a curve that odefend states carries one.

They do not depend on the order of the numbers: what is resampled is sorted first.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its 95 % confidence interval and the number of images it rests on."""

    value: float
    low: float
    high: float
    n: int

    @property
    def percent(self) -> str:
        """As "97.4 % [95.6, 98.5]", or "no data" without any."""
        if not self.n:
            return "no data"
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def text(self, digits: int = 3) -> str:
        """As "0.974 [0.956, 0.985]", or "no data" without any."""
        if not self.n:
            return "no data"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


NORMAL = 1.959964
"""Standard deviations of a normal distribution to either side of its mean that hold 95 % of it."""

MANY = 5000
"""Numbers beyond which a bootstrap of their mean tells nothing that the normal distribution does not."""

NO_DATA = Interval(float("nan"), float("nan"), float("nan"), 0)


def rate(successes: int, trials: int) -> Interval:
    """A proportion with its Wilson interval."""
    if not trials:
        return NO_DATA
    bounds = binomtest(successes, trials).proportion_ci(method="wilson")
    return Interval(successes / trials, float(bounds.low), float(bounds.high), trials)


def mean(values: np.ndarray, seed: int = 0, resamples: int = 2000) -> Interval:
    """A mean of numbers with its percentile bootstrap interval, or, of more than 5,000 numbers, the normal one, from which
    the bootstrap then hardly differs.

    Where all numbers are equal a bootstrap would claim certainty: then the interval is that of a rate in as many trials,
    if they are all 0, all 1 or all -1, and otherwise has no width.
    """
    values = np.sort(np.asarray(values, dtype=float))
    if not len(values):
        return NO_DATA
    if len(set(values.tolist())) == 1 and values[0] in (-1.0, 0.0, 1.0):
        share = rate(len(values) * abs(int(values[0])), len(values))
        return share if values[0] >= 0 else Interval(-share.value, -share.high, -share.low, share.n)
    if len(values) > MANY:
        half = float(NORMAL * values.std(ddof=1) / np.sqrt(len(values)))
        return Interval(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half, len(values))
    picks = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def median(values: np.ndarray, seed: int = 0, resamples: int = 2000) -> Interval:
    """A median of numbers, some of which may be infinite, with its percentile bootstrap interval."""
    values = np.sort(np.asarray(values, dtype=float))
    if not len(values):
        return NO_DATA
    picks = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    # The nearest of the resampled medians, for between a number and infinity there is nothing to interpolate.
    low, high = np.percentile(np.median(values[picks], axis=1), [2.5, 97.5], method="nearest")
    return Interval(float(np.median(values)), float(low), float(high), len(values))


def mean_difference(values: np.ndarray, others: np.ndarray) -> Interval:
    """The mean difference of two numbers in [0, 1] per image, with its percentile bootstrap interval over the images.

    Where they are equal on all images, the interval is as wide as that of a rate of 0 in as many trials, to either side.
    """
    gaps = np.asarray(values, dtype=float) - np.asarray(others, dtype=float)
    if len(gaps) and not gaps.any():
        most = rate(0, len(gaps)).high
        return Interval(0.0, -most, most, len(gaps))
    return mean(gaps)


def mean_ratio(values: np.ndarray, others: np.ndarray, seed: int = 0, resamples: int = 2000) -> Interval:
    """The ratio of the means of two numbers per image, with its percentile bootstrap interval over the images."""
    if not len(values):
        return NO_DATA
    values, others = _sorted(np.asarray(values, dtype=float), np.asarray(others, dtype=float))
    picks = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[picks].mean(1) / others[picks].mean(1), [2.5, 97.5])
    return Interval(float(values.mean() / others.mean()), float(low), float(high), len(values))


def _sorted(values: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs in the order of the first number, then the second."""
    order = np.lexsort((others, values))
    return values[order], others[order]


def _wins(clean: np.ndarray, attacked: np.ndarray) -> np.ndarray:
    """For each pair of a clean and an attacked image: 1 where the attacked one scores higher, 1/2 for a tie."""
    return (attacked > clean[:, None]) + 0.5 * (attacked == clean[:, None])


def _resampled(wins: np.ndarray, seed: int, resamples: int) -> tuple[float, float]:
    """Bounds of the mean over pairs, images of each kind resampled: the mean weighted by how often each is drawn."""
    generator = np.random.default_rng(seed)
    clean, attacked = (generator.multinomial(n, np.full(n, 1 / n), resamples) / n for n in wins.shape)
    low, high = np.percentile(((clean @ wins) * attacked).sum(1), [2.5, 97.5])
    return float(low), float(high)


def auroc(clean: np.ndarray, attacked: np.ndarray) -> Interval:
    """The probability that an attacked image scores higher than a clean one (ties count half), with a score interval, which has a
    width also where the scores separate perfectly: see `_auroc_bounds`."""
    if not len(clean) or not len(attacked):
        return NO_DATA
    wins = _wins(np.sort(clean), np.sort(attacked))
    return Interval(float(wins.mean()), *_auroc_bounds(wins), len(attacked))


def _auroc_bounds(wins: np.ndarray) -> tuple[float, float]:
    """Bounds of an area under the ROC by method 5 of Newcombe (2006, doi 10.1002/sim.2324).

    Its variance is that of Hanley & McNeil's exponential model at each bound, as in Wilson's interval of a rate; where DeLong's
    variance (1988, doi 10.2307/2531595) of these scores is larger than the model's, as where one kind's scores spread much more
    than the other's, the model's is multiplied by the ratio. Where many scores tie, that is wider than it had to be.
    """
    area, (m, n) = float(wins.mean()), wins.shape

    def variance(theta: float) -> float:
        shape = (1 - theta) / (2 - theta) + theta / (1 + theta)
        return theta * (1 - theta) * (1 + ((m + n) / 2 - 1) * shape) / (m * n)

    model, ratio = variance(area), 1.0
    if model > 0 and min(m, n) > 1:
        own = float(wins.mean(1).var(ddof=1)) / m + float(wins.mean(0).var(ddof=1)) / n
        ratio = max(1.0, own / model)

    def lower(value: float) -> float:
        """Where `value` lies NORMAL standard deviations above; 0 is no answer, though nothing varies there."""
        if value <= 0:
            return 0.0
        top = min(value, 1 - 1e-9)
        beyond = lambda theta: value - theta - NORMAL * (ratio * variance(theta)) ** 0.5  # noqa: E731
        return cast(float, brentq(beyond, 0.0, top))

    return lower(area), 1 - lower(1 - area)


def auroc_difference(
    clean: np.ndarray,
    attacked: np.ndarray,
    other_clean: np.ndarray,
    other_attacked: np.ndarray,
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """The area of one detector minus that of another which scored the same images in the same order, paired, with a bootstrap
    interval over the images of each kind.

    Where both rank all pairs alike, the interval is as wide to either side as that of perfect separation of as many images.
    """
    if not len(clean) or not len(attacked):
        return NO_DATA
    clean, other_clean = _sorted(clean, other_clean)
    attacked, other_attacked = _sorted(attacked, other_attacked)
    gaps = _wins(clean, attacked) - _wins(other_clean, other_attacked)
    if not gaps.any():
        most = 1 - _auroc_bounds(np.ones_like(gaps))[0]
        return Interval(0.0, -most, most, len(attacked))
    low, high = _resampled(gaps, seed, resamples)
    return Interval(float(gaps.mean()), low, high, len(attacked))
