"""Detectors of attacked images. `DETECTORS` maps a detector's name to its class, `BATCH_TESTS` those of whole batches."""

from odefend.detectors.base import Detector as Detector
from odefend.detectors.baselines import Confidence as Confidence
from odefend.detectors.baselines import Energy as Energy
from odefend.detectors.baselines import Entropy as Entropy
from odefend.detectors.baselines import FeatureSqueezing as FeatureSqueezing
from odefend.detectors.baselines import NoiseDrop as NoiseDrop
from odefend.detectors.baselines import OnePassMargin as OnePassMargin
from odefend.detectors.batch_tests import BATCH_TESTS as BATCH_TESTS
from odefend.detectors.batch_tests import MMD as MMD
from odefend.detectors.batch_tests import BatchTest as BatchTest
from odefend.detectors.batch_tests import EnergyDistance as EnergyDistance
from odefend.detectors.calibrate import Calibrated as Calibrated
from odefend.detectors.calibrate import Calibration as Calibration
from odefend.detectors.calibrate import Kind as Kind
from odefend.detectors.families import DETECTORS as DETECTORS
from odefend.detectors.fusion import Fused as Fused
from odefend.detectors.network import SeparateNetwork as SeparateNetwork
from odefend.detectors.pca import PrincipalComponents as PrincipalComponents
from odefend.detectors.solver import EmbeddedError as EmbeddedError
from odefend.detectors.solver import LogitSpread as LogitSpread
from odefend.detectors.solver import StepTrace as StepTrace
from odefend.detectors.storage import load_detector as load_detector
from odefend.detectors.storage import named_detector as named_detector
from odefend.detectors.storage import save_detector as save_detector
from odefend.detectors.vote import ToleranceVote as ToleranceVote
from odefend.detectors.vote import agreement as agreement
