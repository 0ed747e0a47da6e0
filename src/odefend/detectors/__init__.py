"""Detectors of attacked images. `DETECTORS` maps a detector's name to its class."""

from odefend.detectors.base import Detector as Detector
from odefend.detectors.baselines import OnePassMargin as OnePassMargin
from odefend.detectors.vote import ToleranceVote as ToleranceVote
from odefend.detectors.vote import agreement as agreement

DETECTORS = {"tolerance-vote": ToleranceVote, "one-pass-margin": OnePassMargin}
