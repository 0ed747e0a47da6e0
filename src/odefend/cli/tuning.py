"""Tuning a defense."""

import json
from pathlib import Path

from odefend.attacks import PGD, named_attack
from odefend.cli.experiment import claims_table
from odefend.cli.output import finite, print_json, say, show, table_json
from odefend.cli.progress import showing
from odefend.files import write_json
from odefend.report.words import words
from odefend.studies.tuning import tune, tuning


def run_tune(
    net: str,
    defense: str,
    attack: str,
    epsilon: str,
    max_accuracy_drop: float,
    images: int,
    out: Path,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """The settings of a defense, with their evidence."""
    ball = named_attack("pgd", {"epsilon": epsilon})
    assert isinstance(ball, PGD)
    experiment = tuning(net, defense, None, attack, ball.epsilon, max_accuracy_drop, images)
    with showing(quiet) as progress:
        found = tune(experiment, out, progress, workers)
    page = found.report.write()
    told = {
        "net": net,
        "chosen": found.defense and {"name": found.defense.name, "settings": json.loads(found.defense.settings)},
        "max_accuracy_drop": max_accuracy_drop,
        "epsilon": ball.epsilon,
        "noise_of_equal_dose": found.noise,
        "code_version": found.report.rows.crafted["code_version"][0],
        "tables": [table_json(one) for one in found.report.tables],
    }
    path = out / f"{defense}.json"
    write_json(path, finite(told))
    if as_json:
        print_json(told | {"file": str(path), "report": str(page)})
        return
    show(*found.report.tables, claims_table(found.report.claims))
    chosen = words(told["chosen"]["settings"]) or "as it is" if told["chosen"] else "none, since each costs too much"
    say("", f"Chosen: {chosen}", f"With its evidence: {path}", f"Report: {page}")
