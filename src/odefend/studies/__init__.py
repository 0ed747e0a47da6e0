"""Studies: experiments as declarations, one file for each, that `odefend study NAME` runs.

`STUDIES` maps a name to a function that returns the experiment, on so many images if it is told.
"""

from collections.abc import Callable, Mapping

from odefend.experiments import Experiment
from odefend.studies.attacks import attacks
from odefend.studies.defenses import defenses, defenses_mnist
from odefend.studies.demo import demo
from odefend.studies.detectors import detectors, detectors_matched, detectors_mnist
from odefend.studies.distances import distances
from odefend.studies.hardened import hardened, hardened_mnist
from odefend.studies.icprw2020 import icprw2020
from odefend.studies.presets import presets
from odefend.studies.wifs2019 import wifs2019

STUDIES: Mapping[str, Callable[..., Experiment]] = {
    "attacks": attacks,
    "defenses": defenses,
    "defenses-mnist": defenses_mnist,
    "demo": demo,
    "detectors": detectors,
    "detectors-matched": detectors_matched,
    "detectors-mnist": detectors_mnist,
    "distances": distances,
    "hardened": hardened,
    "hardened-mnist": hardened_mnist,
    "icprw2020": icprw2020,
    "presets": presets,
    "wifs2019": wifs2019,
}
