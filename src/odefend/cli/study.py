"""Studies: run them, and show their tables."""

from pathlib import Path

from odefend.cli.output import console, print_json, show, table_json
from odefend.cli.progress import showing
from odefend.errors import unknown
from odefend.studies import attacks, attacks_report


def run_study(name: str, out: Path, images: int, workers: int | None, quiet: bool, as_json: bool) -> None:
    """The tables of a study, from what is in its folder and what is still to be done."""
    if name != "attacks":
        raise unknown("study", name, ("attacks",))
    with showing(quiet) as progress:
        ledger = attacks.measure(out, attacks.Trial(images=images, few=max(1, images // 4)), progress, workers)
    tables = attacks_report.summary(attacks_report.Rows.of(ledger))
    if as_json:
        print_json({"ledger": str(ledger.folder), "tables": [table_json(table) for table in tables]})
        return
    terminal = console()
    for table in tables:
        show(terminal, table)
    terminal.print(f"\nLedger: {ledger.folder}", highlight=False, soft_wrap=True)
