"""Evaluations: run them, say what they would take, and report on their rows."""

import time
from pathlib import Path

from odefend.cli.experiment import experiments_in, run_experiment_report
from odefend.cli.output import paragraphs, print_json, say, show, table_json
from odefend.cli.progress import clock, duration, showing
from odefend.errors import OutputError
from odefend.evaluation import Evaluation, estimate, evaluate, evaluations_in, opened
from odefend.evaluation.runner import workers_here
from odefend.report import Table, evaluation_page
from odefend.report.rows import Rows


def run_evaluation(
    evaluation: Evaluation,
    out: Path,
    workers: int | None,
    quiet: bool,
    events: Path | None,
    as_json: bool,
    ray: str | None = None,
) -> None:
    """Run an evaluation, write its report, and show its tables."""
    began = time.monotonic()
    with showing(quiet, events) as progress:
        ledger = evaluate(evaluation, out, progress, workers, ray)
    rows = Rows.read(evaluation, ledger)
    page = evaluation_page.write(rows, out, time.monotonic() - began)
    if as_json:
        print_json(
            {
                "report": str(page),
                "ledger": str(ledger.folder),
                "seconds": round(time.monotonic() - began, 1),
                "findings": evaluation_page.lessons(rows),
                "tables": [table_json(table) for table in evaluation_page.summary(rows)],
            }
        )
        return
    show(*evaluation_page.summary(rows))
    paragraphs("What was found", evaluation_page.lessons(rows))
    say("", f"Report: {page}", f"Ledger: {ledger.folder}", f"Time: {clock(time.monotonic() - began)}")


def run_estimate(evaluation: Evaluation, out: Path, workers: int | None, as_json: bool) -> None:
    """What an evaluation would take."""
    found, hands = estimate(evaluation, out), workers_here() if workers is None else workers
    if as_json:
        print_json({"seconds": found.total / hands, "workers": hands, "done": found.done, "by": found.seconds})
        return
    rows = tuple((name, str(found.units[name]), duration(found.seconds[name] / hands)) for name in found.units)
    show(
        Table(
            f"{evaluation.name}: {sum(found.units.values())} pieces of work to do, {found.done} done",
            ("for", "pieces", "about"),
            (*rows, ("all", str(sum(found.units.values())), duration(found.total / hands))),
            f"On {hands} processes, judging by a few gradients measured now: attacks that stop early take less, and a machine "
            "with other load more. A run corrects this while it goes on.",
        ),
    )


def run_report(folder: Path, name: str | None) -> None:
    """A report from rows alone, of all evaluations in a folder or of one."""
    declared, evaluations = (
        [one for one in found(folder) if name in (None, one)] for found in (experiments_in, evaluations_in)
    )
    if name and not declared:
        evaluations = [name]
    if not (declared or evaluations):
        raise OutputError(f"{folder}: expected a folder that `odefend evaluate` or `odefend demo` wrote, found none.")
    for one in declared:
        run_experiment_report(folder, one)
    for one in evaluations:
        evaluation, ledger, finished = opened(folder, one)
        page = evaluation_page.write(Rows.read(evaluation, ledger, finished), folder)
        say(f"Report: {page}")
