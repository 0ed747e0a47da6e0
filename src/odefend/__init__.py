"""odefend: train Neural-ODE image classifiers, attack them, defend them, and say honestly what holds.

The public API on one screen. Four nouns: a Classifier turns images into logits; an Attack turns images into adversarial
ones; a Defense turns a classifier into another; a Detector gives each image a number, higher = more suspicious.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from odefend.attacks import APGD as APGD
    from odefend.attacks import ATTACKS as ATTACKS
    from odefend.attacks import BIM as BIM
    from odefend.attacks import DDN as DDN
    from odefend.attacks import FGSM as FGSM
    from odefend.attacks import FMN as FMN
    from odefend.attacks import PGD as PGD
    from odefend.attacks import SPSA as SPSA
    from odefend.attacks import Adversarial as Adversarial
    from odefend.attacks import Attack as Attack
    from odefend.attacks import AutoAttack as AutoAttack
    from odefend.attacks import Availability as Availability
    from odefend.attacks import CarliniWagner as CarliniWagner
    from odefend.attacks import DeepFool as DeepFool
    from odefend.attacks import Expectation as Expectation
    from odefend.attacks import FoolboxAttack as FoolboxAttack
    from odefend.attacks import Guard as Guard
    from odefend.attacks import MinimumNorm as MinimumNorm
    from odefend.attacks import Pushed as Pushed
    from odefend.attacks import Square as Square
    from odefend.attacks import SuperDeepFool as SuperDeepFool
    from odefend.attacks import WorstCase as WorstCase
    from odefend.attacks import as_foolbox as as_foolbox
    from odefend.attacks import check_setup as check_setup
    from odefend.attacks import named_attack as named_attack
    from odefend.attacks import ode_sources as ode_sources
    from odefend.attacks import strongest as strongest
    from odefend.data import DATASETS as DATASETS
    from odefend.data import TAMPERINGS as TAMPERINGS
    from odefend.data import LabelledImages as LabelledImages
    from odefend.data import cifar10 as cifar10
    from odefend.data import digits as digits
    from odefend.data import mnist as mnist
    from odefend.data import tamper as tamper
    from odefend.defenses import DEFENSES as DEFENSES
    from odefend.defenses import Averaged as Averaged
    from odefend.defenses import BitDepth as BitDepth
    from odefend.defenses import Certificate as Certificate
    from odefend.defenses import FixedEndTime as FixedEndTime
    from odefend.defenses import FixedTolerance as FixedTolerance
    from odefend.defenses import InputNoise as InputNoise
    from odefend.defenses import InputTransform as InputTransform
    from odefend.defenses import LogUniform as LogUniform
    from odefend.defenses import MajorityVote as MajorityVote
    from odefend.defenses import Purification as Purification
    from odefend.defenses import RandomEndTime as RandomEndTime
    from odefend.defenses import RandomTolerance as RandomTolerance
    from odefend.defenses import Smoothing as Smoothing
    from odefend.defenses import named_defense as named_defense
    from odefend.detectors import DETECTORS as DETECTORS
    from odefend.detectors import Calibrated as Calibrated
    from odefend.detectors import Detector as Detector
    from odefend.detectors import OnePassMargin as OnePassMargin
    from odefend.detectors import ToleranceVote as ToleranceVote
    from odefend.detectors import load_detector as load_detector
    from odefend.detectors import named_detector as named_detector
    from odefend.detectors import save_detector as save_detector
    from odefend.errors import OdefendError as OdefendError
    from odefend.models import IMAGE_MODELS as IMAGE_MODELS
    from odefend.models import MODELS as MODELS
    from odefend.models import Classifier as Classifier
    from odefend.models import ImageModel as ImageModel
    from odefend.models import ODENet as ODENet
    from odefend.models import Prediction as Prediction
    from odefend.models import adapt as adapt
    from odefend.models import as_classifier as as_classifier
    from odefend.models import load as load
    from odefend.models import load_image_model as load_image_model
    from odefend.norms import L2 as L2
    from odefend.norms import LINF as LINF
    from odefend.norms import RMS as RMS
    from odefend.solver import Solution as Solution
    from odefend.solver import Status as Status
    from odefend.solver import solve as solve
    from odefend.version import VERSION as __version__  # noqa: F401
else:
    from odefend.lazy import lazy

    __getattr__, __dir__, __all__ = lazy(__name__)
