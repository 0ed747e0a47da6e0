"""How well detectors tell attacked images from clean ones, from their scores."""

import numpy as np
import torch

from odefend.detectors import Calibration


def threshold(held_out: np.ndarray, allowed: float) -> float:
    """The conformal threshold that the scores of clean calibration images set: above it an image alarms. Inf, and no alarm, where
    they are too few to tell so small a share (see `detectors.Calibration`)."""
    if (len(held_out) + 1) * allowed < 1:
        return np.inf
    return Calibration(torch.tensor(held_out)).threshold(allowed)


def precision(caught: float, false_alarms: float, prevalence: float = 0.01) -> float:
    """The share of alarms that are attacks, where a share `prevalence` of all images is attacked; nan without any alarm."""
    right, wrong = prevalence * caught, (1 - prevalence) * false_alarms
    return right / (right + wrong) if right + wrong else float("nan")


def acceptance(clean: np.ndarray, attacked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC in the convention of Carrara et al. (ICPR-W 2020): (attacked images accepted, clean images accepted), an
    image being accepted where its score is at most the threshold."""
    levels = np.unique(np.r_[-np.inf, clean, attacked, np.inf])
    return (
        np.array([(attacked <= level).mean() for level in levels]),
        np.array([(clean <= level).mean() for level in levels]),
    )
