"""Hardening a net."""

from pathlib import Path

from odefend.cli.output import print_json, say, show, table_json
from odefend.cli.progress import showing
from odefend.studies.hardening import harden


def run_harden(
    net: str,
    method: str,
    strength: float,
    minutes: float,
    out: Path,
    images: int,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """A hardening, and the table of what it changed."""
    with showing(quiet) as progress:
        found = harden(net, method, strength, minutes, out, progress, images, workers)
    if as_json:
        print_json(
            {"weights": str(found.weights), "ledger": str(found.ledger.folder), "table": table_json(found.table)}
        )
        return
    show(found.table)
    say("", f"Weights: {found.weights}", f"Ledger: {found.ledger.folder}")
