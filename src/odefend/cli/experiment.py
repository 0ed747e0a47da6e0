"""Experiments: run them, and show their tables and what became of their claims."""

import time
from pathlib import Path

from odefend.cli.output import print_json, say, show, table_json
from odefend.cli.progress import clock, duration, showing
from odefend.engine.runner import workers_here
from odefend.errors import OutputError
from odefend.experiments import Expansion, Experiment, read_experiment, run
from odefend.experiments.keys import keys
from odefend.experiments.pilot import expected_seconds
from odefend.ledger import Ledger
from odefend.metrics import Rows
from odefend.report import Table
from odefend.report.claims import Judged
from odefend.report.experiment_page import Report
from odefend.report.headline import Standing, standing_table


def run_experiment(
    experiment: Experiment,
    out: Path,
    workers: int | None,
    quiet: bool,
    events: Path | None,
    as_json: bool,
    ray: str | None = None,
) -> None:
    """Run an experiment, and show what came of it."""
    began = time.monotonic()
    with showing(quiet, events) as progress:
        ledger = run(experiment, out, progress, workers, ray)
    rows = Rows.read(ledger, experiment.name)
    report = Report(experiment, rows, out, own=True)
    page, seconds = report.write(), time.monotonic() - began
    if as_json:
        print_json(
            {
                "report": str(page),
                "ledger": str(ledger.folder),
                "seconds": round(seconds, 1),
                "models": [_standing(one) for one in report.headline.standings],
                "checks": [vars(one) for one in report.checks],
                "claims": [_claim(one) for one in report.claims],
                "tables": [table_json(one) for one in report.tables],
            }
        )
        return
    standing = report.headline.standings
    show(
        *([standing_table(standing)] if standing else []),
        *report.tables,
        *([claims_table(report.claims)] if report.claims else []),
    )
    say("", f"Report: {page}", f"Ledger: {ledger.folder}", f"Time: {clock(seconds)}")


def experiments_in(folder: Path) -> list[str]:
    """The names of the experiments that a folder holds."""
    return sorted(
        path.stem for path in folder.glob("*.json") if path.is_file() and b'"experiment"' in path.read_bytes()
    )


def run_report(folder: Path, name: str | None) -> None:
    """The reports of all experiments in a folder anew, or of one, from their rows."""
    names = [name] if name else experiments_in(folder)
    if not names:
        raise OutputError(f"{folder}: expected a folder that `odefend evaluate` or `odefend demo` wrote, found none.")
    for one in names:
        experiment = read_experiment(folder / f"{one}.json")
        rows = Rows.read(Ledger(folder / "ledger"), experiment.name)
        say(f"Report: {Report(experiment, rows, folder).write()}")


def run_keys(as_json: bool) -> None:
    """Every key of an experiment's file."""
    rows = tuple(keys())
    if as_json:
        print_json([dict(zip(("key", "default", "meaning"), row, strict=True)) for row in rows])
        return
    note = "NAME is yours to choose. Lists expand to grids; a text that begins with $ is a value derived from earlier rows."
    show(Table("Keys of an experiment's file", ("key", "default", "meaning"), rows, note))


def run_plan(experiment: Experiment, workers: int | None, as_json: bool) -> None:
    """What an experiment would take: its pieces of work, as far as they are known before anything is done."""
    hands, expansion = workers or workers_here(), Expansion(experiment)
    expected = expected_seconds(expansion)
    work = dict[str, list[tuple[float, float]]]()
    for task in expansion.tasks():
        name = task.label.attack if task.label.measure == "craft" else task.label.measure
        work.setdefault(name or "", []).append((task.unit.cost, expected[task.unit]))
    total = sum(expected.values()) / hands
    if as_json:
        gradients = {name: sum(cost for cost, _ in units) for name, units in work.items()}
        print_json({"seconds": total, "workers": hands, "gradients": gradients})
        return
    rows = tuple(
        (
            name,
            str(len(units)),
            f"{sum(cost for cost, _ in units):,.0f}",
            duration(sum(seconds for _, seconds in units) / hands),
        )
        for name, units in work.items()
    )
    waits = (
        f" Not counted, since it waits for values derived from rows: {', '.join(expansion.missing)}."
        if expansion.missing
        else ""
    )
    show(
        Table(
            f"{experiment.name}: about {duration(total)}",
            ("for", "pieces", "gradients", "about"),
            rows,
            f"On {hands} processes, by gradients on a few images, measured now; early stops make it less.{waits}",
        ),
    )


def claims_table(claims: list[Judged]) -> Table:
    """What became of claims."""
    rows = tuple((one.outcome, one.sentence, f"{one.difference.value:+.3g}") for one in claims)
    return Table("Claims", ("outcome", "claim", "difference"), rows, "Judged by 95 % intervals.")


def _claim(one: Judged) -> dict[str, object]:
    sides = {"left": vars(one.left), "right": vars(one.right), "difference": vars(one.difference)}
    return {"claim": one.sentence, "outcome": one.outcome, **sides}


def _standing(one: Standing) -> dict[str, object]:
    return {**vars(one), "clean": vars(one.clean), "robust": vars(one.robust)}
