"""Studies: run them, and show their tables."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from odefend.cli.experiment import run_experiment
from odefend.cli.output import print_json, say, show, table_json
from odefend.cli.progress import showing
from odefend.errors import unknown
from odefend.evaluation import Ledger
from odefend.progress import Progress
from odefend.report import Table
from odefend.studies import STUDIES as DECLARED
from odefend.studies import (
    defenses,
    defenses_report,
)


def _sized(usual: Any, images: int, *others: str) -> Any:
    """A study of so many images, with other numbers of images in proportion; what it does not do stays undone."""
    counts = {name: getattr(usual, name) for name in others}
    parts = {name: max(1, round(images / usual.images * count)) for name, count in counts.items() if count}
    return replace(usual, images=images, **parts)


def _defenses(data: str, out: Path, images: int, progress: Progress, workers: int | None) -> tuple[Ledger, list[Table]]:
    setup = _sized(defenses.SETUPS[data], images, "nearest")
    ledger = defenses.measure(out, setup, progress, workers)
    tried = defenses.subjects(setup, defenses.points(out, setup))
    return ledger, defenses_report.summary(defenses_report.Rows.of(ledger, setup.name), setup, tried)


STUDIES = {
    "defenses": (partial(_defenses, "digits"), 200),
    "defenses-mnist": (partial(_defenses, "mnist"), 200),
}
"""Studies by name, with the number of images that each takes by itself."""


def run_study(name: str, out: Path, images: int | None, workers: int | None, quiet: bool, as_json: bool) -> None:
    """The tables of a study, from what is in its folder and what is still to be done."""
    if name in DECLARED:
        run_experiment(
            DECLARED[name](**({} if images is None else {"images": images})), out, workers, quiet, None, as_json
        )
        return
    if name not in STUDIES:
        raise unknown("study", name, [*DECLARED, *STUDIES])
    run, usual = STUDIES[name]
    with showing(quiet) as progress:
        ledger, tables = run(out, usual if images is None else images, progress, workers)
    if as_json:
        print_json({"ledger": str(ledger.folder), "tables": [table_json(table) for table in tables]})
        return
    show(*tables)
    say("", f"Ledger: {ledger.folder}")
