"""Experiments: run them, and show their tables and what became of their claims."""

import time
from pathlib import Path

from odefend.cli.output import print_json, say, show, table_json
from odefend.cli.progress import clock, duration, showing
from odefend.engine.runner import workers_here
from odefend.experiments import Expansion, Experiment, read_experiment, run
from odefend.experiments.keys import keys
from odefend.experiments.pilot import seconds_per_gradient
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


def run_experiment_report(folder: Path, name: str) -> None:
    """The report of an experiment anew, from its rows."""
    experiment = read_experiment(folder / f"{name}.json")
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
    work = dict[str, list[float]]()
    for task in expansion.tasks():
        name = task.label.attack if task.label.measure == "craft" else task.label.measure
        work.setdefault(name or "", []).append(task.unit.cost)
    pilot = seconds_per_gradient(experiment)
    total = sum(map(sum, work.values())) * pilot / hands
    if as_json:
        print_json(
            {"seconds": total, "workers": hands, "gradients": {name: sum(costs) for name, costs in work.items()}}
        )
        return
    rows = tuple(
        (name, str(len(costs)), f"{sum(costs):,.0f}", duration(sum(costs) * pilot / hands))
        for name, costs in work.items()
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
            f"On {hands} processes, by the gradient of the slowest model on a few images, measured now; early stops make it "
            f"less.{waits}",
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
