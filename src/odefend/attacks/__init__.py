"""Attacks. `ATTACKS` maps an attack's name to its class, `PRESETS` a name to an attack with its settings."""

from odefend.attacks.autoattack_adapter import AutoAttack as AutoAttack
from odefend.attacks.availability import Availability as Availability
from odefend.attacks.base import Adversarial as Adversarial
from odefend.attacks.base import Attack as Attack
from odefend.attacks.carlini_wagner import CarliniWagner as CarliniWagner
from odefend.attacks.deepfool import DeepFool as DeepFool
from odefend.attacks.differentiable import straight_through as straight_through
from odefend.attacks.expectation import Expectation as Expectation
from odefend.attacks.foolbox_adapter import FoolboxAttack as FoolboxAttack
from odefend.attacks.foolbox_adapter import as_foolbox as as_foolbox
from odefend.attacks.gradient import BIM as BIM
from odefend.attacks.gradient import FGSM as FGSM
from odefend.attacks.gradient import PGD as PGD
from odefend.attacks.guard import Guard as Guard
from odefend.attacks.losses import LOSSES as LOSSES
from odefend.attacks.presets import ATTACKS as ATTACKS
from odefend.attacks.presets import PRESETS as PRESETS
from odefend.attacks.presets import Preset as Preset
from odefend.attacks.presets import Radius as Radius
from odefend.attacks.presets import named_attack as named_attack
from odefend.attacks.push import Pushed as Pushed
from odefend.attacks.setup_check import check_setup as check_setup
from odefend.attacks.sources import ode_sources as ode_sources
from odefend.attacks.strongest import Strongest as Strongest
from odefend.attacks.strongest import strongest as strongest
