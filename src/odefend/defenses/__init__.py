"""Defenses: a classifier in, a classifier out. `DEFENSES` maps a defense's name to its class."""

from odefend.defenses.certificate import Certificate as Certificate
from odefend.defenses.certificate import Decision as Decision
from odefend.defenses.draws import Averaged as Averaged
from odefend.defenses.draws import MajorityVote as MajorityVote
from odefend.defenses.endtime import FixedEndTime as FixedEndTime
from odefend.defenses.endtime import RandomEndTime as RandomEndTime
from odefend.defenses.families import DEFENSES as DEFENSES
from odefend.defenses.families import Defense as Defense
from odefend.defenses.families import defense_class as defense_class
from odefend.defenses.families import named_defense as named_defense
from odefend.defenses.noise import InputNoise as InputNoise
from odefend.defenses.purification import Purification as Purification
from odefend.defenses.randomized import RandomizedNet as RandomizedNet
from odefend.defenses.smoothing import Smoothing as Smoothing
from odefend.defenses.tolerance import FixedTolerance as FixedTolerance
from odefend.defenses.tolerance import LogUniform as LogUniform
from odefend.defenses.tolerance import RandomTolerance as RandomTolerance
from odefend.defenses.transform import BitDepth as BitDepth
from odefend.defenses.transform import InputTransform as InputTransform
