"""From scores to false-alarm rates: split-conformal p-values (Vovk et al., Algorithmic Learning in a Random World, 2005;
Bates et al., arXiv 2104.08279), and which images a calibration says nothing of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odefend import rng
from odefend.detectors.base import Detector
from odefend.errors import InvalidInput
from odefend.tensors import Images, Mask, PerImage


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of clean images that the detector did not learn from.

    As long as clean images come from where these did, a share of at most alpha of them has a p-value of at most alpha, on
    average over calibrations. That of one calibration of n images varies as a beta distribution: about alpha, give or take
    the root of alpha (1 - alpha) / n.
    """

    scores: Tensor

    def __post_init__(self) -> None:
        if self.scores.ndim != 1 or not len(self.scores) or not bool(torch.isfinite(self.scores).all()):
            raise InvalidInput(f"scores: expected at least one finite number, got {tuple(self.scores.shape)}.")
        object.__setattr__(self, "scores", self.scores.detach().double().cpu().sort().values)

    def p_values(self, scores: PerImage) -> Tensor:
        """The share of clean images at least as suspicious, each image being counted among them: in [1 / (n + 1), 1].

        Scores that equal those of clean images count against an alarm, so a score of few values alarms less than it may.
        """
        return (1 + self._above(scores, ties=True)) / (len(self.scores) + 1)

    def randomized_p_values(self, scores: PerImage, ids: Sequence[str], seed: int = 0) -> Tensor:
        """The same with ties broken at random, by seed and id: uniform for clean images, whatever values the score takes."""
        above, equal = self._above(scores, ties=False), self._above(scores, ties=True)
        lot = rng.uniform(seed, ids, "ties")
        return (above + (1 - lot) * (1 + equal - above)) / (len(self.scores) + 1)

    def threshold(self, allowed: float) -> float:
        """The score above which an image alarms for a share `allowed` of false alarms: there and nowhere else its p-value is
        at most that.

        Raises InvalidInput below 1 / (n + 1), which no score could reach.
        """
        count = len(self.scores)
        if not 1 / (count + 1) <= allowed < 1:
            raise InvalidInput(
                f"allowed: expected a share of false alarms of at least 1 / {count + 1}, which {count} calibration images "
                f"can tell, and below 1, got {allowed:g}. Calibrate on more images, or allow more."
            )
        # No more than so many calibration scores may be as high as one that alarms; 1e-9: (n + 1) allowed may fall short
        # of a whole number by rounding.
        tolerated = int(allowed * (count + 1) + 1e-9) - 1
        return float(self.scores[count - 1 - tolerated])

    def alarms(self, scores: PerImage, allowed: float) -> Mask:
        """Whether each image's p-value is at most `allowed`."""
        return scores.double() > self.threshold(allowed)

    def _above(self, scores: PerImage, *, ties: bool) -> Tensor:
        """How many calibration scores are above each score, or at least as high."""
        found = torch.searchsorted(self.scores, scores.detach().double().cpu().contiguous(), right=not ties)
        return (len(self.scores) - found).double()


STATISTICS = ("mean", "standard deviation", "detail")
"""What is measured of an image to tell its kind; detail: mean absolute difference of neighbours."""


@dataclass(frozen=True, eq=False)
class Kind:
    """The kind of images a calibration holds for: their size, and ranges of simple statistics (see STATISTICS).

    A coarse check: it notices other data, blank pictures and noise, and is meant to notice no attack.
    """

    size: tuple[int, ...]
    low: Tensor
    high: Tensor

    def __post_init__(self) -> None:
        ranges = torch.cat([self.low, self.high])
        if len(self.size) != 3 or ranges.shape != (2 * len(STATISTICS),) or not bool(torch.isfinite(ranges).all()):
            raise InvalidInput(
                f"size, low, high: expected 3 numbers in each, got {self.size}, {tuple(self.low.shape)}, {tuple(self.high.shape)}."
            )

    @classmethod
    def of(cls, images: Images, slack: float = 0.25) -> "Kind":
        """The kind of these images; each range is widened by a share `slack` of itself on either side."""
        if len(images) < 2:
            raise InvalidInput(f"images: expected at least 2 to tell their kind by, got {len(images)}.")
        found = _statistics(images)
        low, high = found.amin(0), found.amax(0)
        room = slack * (high - low)
        return cls(tuple(images.shape[1:]), low - room, high + room)

    def includes(self, images: Images) -> Mask:
        """Whether each image is of this kind."""
        return torch.tensor([not why for why in self.why_not(images)], dtype=torch.bool)

    def why_not(self, images: Images) -> tuple[str, ...]:
        """What makes each image one of another kind: what was expected of this kind, and what the image has. Nothing where it is
        of this kind."""
        if wrong := self.wrong_size(tuple(images.shape[1:])):
            return (wrong,) * len(images)
        return tuple(
            "; ".join(
                f"expected {name} {low:.3g} to {high:.3g}, got {value:.3g}"
                for name, low, high, value in zip(
                    STATISTICS, self.low.tolist(), self.high.tolist(), values, strict=True
                )
                if not low <= value <= high
            )
            for values in _statistics(images).tolist()
        )

    def wrong_size(self, size: tuple[int, ...]) -> str:
        """The same of all images of that size (channels, height, width)."""
        return "" if size == self.size else f"expected {_size(self.size)}, got {_size(size)}"


def _size(size: tuple[int, ...]) -> str:
    channels, height, width = size
    return f"{width} x {height} pixels in {'grey' if channels == 1 else 'colour' if channels == 3 else f'{channels} channels'}"


def _statistics(images: Images) -> Tensor:
    images = images.detach().double().cpu()
    steps = [images.diff(dim=axis).abs().flatten(1).mean(1) for axis in (2, 3) if images.shape[axis] > 1]
    detail = torch.stack(steps).mean(0) if steps else images.new_zeros(len(images))
    flat = images.flatten(1)
    return torch.stack([flat.mean(1), flat.std(1, correction=0), detail], 1)


@dataclass(frozen=True)
class Screening:
    """What a calibrated detector says of images. `p_values` are nan where the image is not of the calibrated kind, and
    `alarms` False: nothing is said of it but `why_not`, which is empty of others."""

    scores: PerImage
    p_values: Tensor
    alarms: Mask
    calibrated: Mask
    why_not: tuple[str, ...]

    @classmethod
    def nothing(cls, why_not: tuple[str, ...]) -> "Screening":
        """Of images of another kind."""
        unknown = torch.full((len(why_not),), torch.nan, dtype=torch.float64)
        no = torch.zeros(len(why_not), dtype=torch.bool)
        return cls(unknown, unknown, no, no, why_not)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A detector, what it scored on clean images, and of what kind those were."""

    detector: Detector
    calibration: Calibration
    kind: Kind

    @classmethod
    @torch.no_grad()
    def on(cls, detector: Detector, images: Images, ids: Sequence[str]) -> "Calibrated":
        """Calibrated on clean images, which the detector must not have learned from."""
        return cls.of(detector, detector.score(images, ids), images)

    @classmethod
    def of(cls, detector: Detector, scores: PerImage, images: Images) -> "Calibrated":
        """The same, where these images were scored before."""
        return cls(detector, Calibration(scores), Kind.of(images))

    @torch.no_grad()
    def screen(self, images: Images, ids: Sequence[str], allowed: float = 0.05) -> Screening:
        """Score, and alarm at a share `allowed` of false alarms."""
        level = self.calibration.threshold(allowed)
        why_not = self.kind.why_not(images)
        known = torch.tensor([not why for why in why_not], dtype=torch.bool)
        scores = torch.full((len(images),), float("nan"), dtype=torch.float64)
        if bool(known.any()):
            rows = known.nonzero()[:, 0]
            scored = self.detector.score(images[rows], [ids[int(row)] for row in rows])
            scores[rows] = scored.detach().double().cpu()
        p_values = torch.where(known, self.calibration.p_values(scores.nan_to_num(0.0)), torch.nan)
        return Screening(scores, p_values, known & (scores > level), known, why_not)

    def state(self) -> dict[str, Tensor]:
        """What there is to keep, as tensors by name."""
        return {
            "scores": self.calibration.scores,
            "size": torch.tensor(self.kind.size),
            "low": self.kind.low,
            "high": self.kind.high,
        }

    @classmethod
    def restored(cls, detector: Detector, state: dict[str, Any]) -> "Calibrated":
        """From what `state` gave."""
        kind = Kind(tuple(state["size"].tolist()), state["low"], state["high"])
        return cls(detector, Calibration(state["scores"]), kind)
