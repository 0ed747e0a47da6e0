"""Studies: each runs at its smallest size, from nets to tables."""

from typing import Any

import pytest

from odefend.experiments import run
from odefend.metrics import Rows
from odefend.progress import Silent
from odefend.report.experiment_page import Report
from odefend.studies import STUDIES
from odefend.studies.attacks import attacks
from odefend.studies.defenses import defenses, defenses_mnist
from odefend.studies.demo import demo
from odefend.studies.detectors import SEARCH, detectors, detectors_matched, detectors_mnist
from odefend.studies.distances import distances
from odefend.studies.hardened import hardened
from odefend.studies.icprw2020 import icprw2020
from odefend.studies.presets import presets
from odefend.studies.robustness import Effort
from odefend.studies.wifs2019 import wifs2019

SHORT = {"steps": 3, "binary_search_steps": 2, "learning_rate": 0.2, "initial_constant": 10.0}
PAIR, NOISE = ("digits-res-adversarial", "digits-res"), (("digits-res-noise", 0.25, "input"),)
QUICK = Effort(steps=2, restarts=1, auto_steps=2, queries=5, draws=20, calibration=20)
SCREENED: dict[str, Any] = {
    "tried": {"one-pass-margin": ("one-pass-margin", {})},
    "search": SEARCH.model_copy(update={"settings": SHORT}),
    "pgd": {"steps": 2},
    "clean": 4,
    "benign": 2,
    "calibration": 20,
    "shard": 4,
}
DEFENDED: dict[str, Any] = {
    "points": {"bit-depth": ({"bits": 2}, 0.1), "input-noise": ({"sigma": 0.1}, None)},
    "steps": 1,
    "followed": (1, 1),
    "search": (2, 1),
    "judged": 2,
    "votes": 1,
}


def on_digits(experiment):
    """A study of nets on MNIST with nets on digits, its search cut short."""
    nets = {"mnist-oon": "digits-oon", "mnist-mix": "digits-oon"}
    short = {"carrara-mnist": SHORT, "bim": {"steps": 2}, "minimum-norm": {"steps": 4}}
    return experiment.model_copy(
        update={
            "data": {name: part.model_copy(update={"set": "digits"}) for name, part in experiment.data.items()},
            "models": {
                name: part.model_copy(update={"net": nets.get(part.net, "digits-res")})
                for name, part in experiment.models.items()
            },
            "attacks": {
                name: part.model_copy(update={"settings": {**part.settings, **short[part.attack]}})
                for name, part in experiment.attacks.items()
            },
        }
    )


SMOKE = {
    "hardened": hardened(2, nets=PAIR, smoothed=NOISE, rejecting={"digits-res": "one-pass-margin"}, effort=QUICK),
    "hardened-mnist": hardened(2, "digits", PAIR, NOISE, {}, QUICK, (0.5, 1.0, 0.5), name="hardened-mnist"),
    "demo": demo(2, clean=4, calibration=20, search=SHORT),
    "attacks": attacks(4, "digits-oon", "digits", 64, SHORT, SHORT, calibration=20, detectors=["one-pass-margin"]),
    "defenses": defenses(2, **DEFENDED),
    "defenses-mnist": defenses_mnist(2, net="digits-oon", twin="digits-res", data="digits", **DEFENDED),
    "detectors": detectors(2, **SCREENED),
    "detectors-matched": detectors_matched(2, **SCREENED),
    "detectors-mnist": detectors_mnist(2, net="digits-oon", data="digits", **SCREENED),
    "distances": on_digits(distances(3)),
    "icprw2020": on_digits(icprw2020(3)),
    "wifs2019": on_digits(wifs2019(3)),
    "presets": presets(2, nets=("digits-oon",), searches=(SHORT, SHORT | {"steps": 2})),
}


def test_every_study_has_a_smallest_size():
    assert set(SMOKE) == set(STUDIES)


@pytest.mark.parametrize("name", SMOKE)
def test_a_study_runs_from_nets_to_its_report(name, tmp_path):
    experiment = SMOKE[name]
    rows = Rows.read(run(experiment, tmp_path, Silent(), workers=1), experiment.name)
    report = Report(experiment, rows, tmp_path)
    assert "Where these numbers come from" in report.write().read_text()
    assert len(report.figures) == len(experiment.figures) and len(report.claims) == len(experiment.claims)
    for found in report.tables:
        assert found.rows and all(len(row) == len(found.columns) for row in found.rows)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_an_experiment_that_fits_together(name):
    experiment = STUDIES[name]()
    assert experiment.name and experiment.tables
