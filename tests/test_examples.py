"""The examples run, at smoke size with every search cut short."""

from dataclasses import fields
from pathlib import Path

import pytest

from odefend.attacks import ATTACKS, PRESETS
from odefend.experiments import limited, read_experiment, run
from odefend.metrics import Rows
from odefend.named import is_own
from odefend.progress import Silent
from odefend.report.experiment_page import Report

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.toml"))
SHORT = {"steps": 2, "binary_search_steps": 1, "queries": 3}
CHECKED = 20
"""Clean images that thresholds for 5 % of alarms take at least."""


def shortened(part):
    if is_own(part.attack):
        return part
    kind = type(PRESETS[part.attack].attack) if part.attack in PRESETS else ATTACKS[part.attack]
    short = {name: value for name, value in SHORT.items() if name in {one.name for one in fields(kind)}}
    return part.model_copy(update={"settings": {**part.settings, **short}})


def of_two_votes(part):
    settings = {**part.settings, **({"votes": 2} if "votes" in part.settings else {})}
    return part.model_copy(update={"settings": settings})


def least(part):
    """Of a grid of tolerances its ends, and what all are set beside."""
    if not isinstance(part.tolerance, tuple):
        return part
    return part.model_copy(update={"tolerance": (part.tolerance[0], 1e-3, part.tolerance[-1])})


def test_examples_are_there():
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("file", [one for one in EXAMPLES if one.stem != "own-nets"], ids=lambda file: file.stem)
def test_the_examples_run(file, tmp_path, request, monkeypatch):
    experiment = read_experiment(file)
    if any(part.set == "mnist" for part in experiment.data.values()):
        monkeypatch.setenv("ODEFEND_DATA", str(request.getfixturevalue("real_data")))
    data = limited(experiment, 2).data
    more = {name: part.model_copy(update={"count": CHECKED}) for name, part in data.items() if name == "calibration"}
    small = limited(experiment, 2).model_copy(
        update={
            "data": {**data, **more},
            "models": {name: least(part) for name, part in experiment.models.items()},
            "detectors": {name: of_two_votes(part) for name, part in experiment.detectors.items()},
            "attacks": {name: shortened(part) for name, part in experiment.attacks.items()},
        }
    )
    rows = Rows.read(run(small, tmp_path, Silent(), workers=1), small.name)
    page = Report(small, rows, tmp_path).write().read_text()
    assert page.count("<table") > len(small.tables) and page.count("<svg") >= len(small.figures)
