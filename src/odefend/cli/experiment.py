"""Experiments: run them, and show their tables and what became of their claims."""

import time
from pathlib import Path

from odefend.cli.output import print_json, say, show, table_json
from odefend.cli.progress import clock, showing
from odefend.experiments import Experiment, run
from odefend.metrics import Rows
from odefend.report import Table
from odefend.report.claims import Judged, judge
from odefend.report.filled import table


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
    rows, seconds = Rows.read(ledger, experiment.name), time.monotonic() - began
    tables = [table(part, rows, experiment) for part in experiment.tables]
    claims = [judge(claim, rows) for claim in experiment.claims]
    if as_json:
        print_json(
            {
                "ledger": str(ledger.folder),
                "seconds": round(seconds, 1),
                "claims": [_claim(one) for one in claims],
                "tables": [table_json(one) for one in tables],
            }
        )
        return
    show(*tables, *([_claims(claims)] if claims else []))
    say("", f"Ledger: {ledger.folder}", f"Time: {clock(seconds)}")


def _claims(claims: list[Judged]) -> Table:
    rows = tuple((one.outcome, one.sentence, f"{one.difference.value:+.3g}") for one in claims)
    return Table("Claims", ("outcome", "claim", "difference"), rows, "Judged by 95 % intervals.")


def _claim(one: Judged) -> dict[str, object]:
    sides = {"left": vars(one.left), "right": vars(one.right), "difference": vars(one.difference)}
    return {"claim": one.sentence, "outcome": one.outcome, **sides}
