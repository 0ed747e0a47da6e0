"""What a folder says of the experiment that it holds."""

import json
from pathlib import Path
from typing import Any

from odefend.engine import opened_net
from odefend.errors import OutputError
from odefend.experiments.parts import Experiment
from odefend.files import make_folder, read_text, write_json
from odefend.ledger import canonical
from odefend.models import weights_digest
from odefend.version import code_of

TOLD = ("title", "text", "tables", "figures", "claims")
"""What may change without a row changing."""


def manifest(folder: Path, name: str) -> Path:
    """Where an experiment's settings stand."""
    return folder / f"{name}.json"


def open_manifest(experiment: Experiment, folder: Path) -> None:
    """Write down what is about to be run. Raises OutputError where the folder holds another experiment of this name, or of other
    nets or code."""
    make_folder(folder)
    path, new = manifest(folder, experiment.name), _settings(experiment)
    if path.exists():
        _check_same(folder, read_manifest(folder, experiment.name), new)
    write_json(path, new | {"finished": False})


def finish(experiment: Experiment, folder: Path) -> None:
    """Write down that all of it is done."""
    write_json(manifest(folder, experiment.name), _settings(experiment) | {"finished": True})


def read_manifest(folder: Path, name: str) -> dict[str, Any]:
    """What was written down. Raises OutputError where it is missing or damaged."""
    path = manifest(folder, name)
    try:
        content: dict[str, Any] = json.loads(read_text(path))
        return {key: content[key] for key in ("experiment", "code", "nets", "finished")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: missing or damaged. Name a folder that `odefend evaluate` wrote.") from error


def _settings(experiment: Experiment) -> dict[str, Any]:
    nets = {
        name: opened_net(model.net, canonical(model.options), canonical(model.wrap))
        for name, model in experiment.models.items()
    }
    return {
        "experiment": experiment.model_dump(mode="json", fallback=lambda value: getattr(value, "__name__", str(value))),
        "code": code_of("odefend.engine.unit", "odefend.attacks"),
        "nets": {name: weights_digest(net) for name, net in nets.items()},
    }


def _check_same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    name = new["experiment"]["name"]
    if old["code"] != new["code"]:
        raise OutputError(
            f"{folder}: holds an experiment {name!r} by odefend {old['code']}, and this is {new['code']}. Install that one "
            "again, or choose another folder: rows of two codes must not be mixed."
        )
    decisive = [
        {key: value for key, value in settings["experiment"].items() if key not in TOLD} for settings in (old, new)
    ]
    if decisive[0] != decisive[1] or old["nets"] != new["nets"]:
        what = [key for key, value in decisive[1].items() if decisive[0].get(key) != value] or ["weights"]
        raise OutputError(
            f"{folder}: holds an experiment {name!r} of other settings ({', '.join(what)}). Choose another name or folder."
        )
