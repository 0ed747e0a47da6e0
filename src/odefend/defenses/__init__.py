"""Defenses: a classifier in, a classifier out. `DEFENSES` maps a defense's name to its class."""

from odefend.defenses.noise import InputNoise as InputNoise
from odefend.defenses.tolerance import LogUniform as LogUniform
from odefend.defenses.tolerance import RandomTolerance as RandomTolerance
from odefend.defenses.transform import InputTransform as InputTransform

DEFENSES = {"random-tolerance": RandomTolerance, "input-noise": InputNoise, "input-transform": InputTransform}
