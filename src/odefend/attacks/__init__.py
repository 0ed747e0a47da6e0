"""Attacks. `ATTACKS` maps an attack's name to its class."""

from odefend.attacks.base import Adversarial as Adversarial
from odefend.attacks.base import Attack as Attack
from odefend.attacks.carlini_wagner import PRESETS as PRESETS
from odefend.attacks.carlini_wagner import CarliniWagner as CarliniWagner
from odefend.attacks.deepfool import DeepFool as DeepFool
from odefend.attacks.expectation import Expectation as Expectation
from odefend.attacks.gradient import BIM as BIM
from odefend.attacks.gradient import FGSM as FGSM
from odefend.attacks.gradient import PGD as PGD
from odefend.attacks.losses import LOSSES as LOSSES
from odefend.attacks.strongest import Strongest as Strongest
from odefend.attacks.strongest import strongest as strongest

ATTACKS: dict[str, type[Attack]] = {
    "fgsm": FGSM,
    "bim": BIM,
    "pgd": PGD,
    "carlini-wagner": CarliniWagner,
    "deepfool": DeepFool,
}
