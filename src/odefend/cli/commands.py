"""What the commands do."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from odefend.cli.progress import clock, showing
from odefend.models import load
from odefend.report import Table
from odefend.studies import demo, demo_report
from odefend.training import read_recipe, train

WIDE = 170


def run_demo(out: Path, images: int, workers: int | None, quiet: bool, as_json: bool) -> None:
    """The demo and its report."""
    began = time.monotonic()
    with showing(quiet) as progress:
        ledger = demo.measure(out, demo.Demo(images=images), progress, workers)
    seconds = time.monotonic() - began
    rows = demo_report.write(ledger, out / "report.html", seconds)
    if as_json:
        _print_json(
            {
                "report": str(out / "report.html"),
                "ledger": str(ledger.folder),
                "seconds": round(seconds, 1),
                "findings": demo_report.lessons(rows),
                "tables": [_as_json(table) for table in demo_report.summary(rows)],
            }
        )
        return
    console = _console()
    for table in demo_report.summary(rows):
        _show(console, table)
    console.print("\n[bold]What was found[/bold]")
    for lesson in demo_report.lessons(rows):
        console.print(f"- {lesson}", highlight=False, soft_wrap=not console.is_terminal)
    console.print(
        f"\nReport: {out / 'report.html'}\nLedger: {ledger.folder}\nTime: {clock(time.monotonic() - began)}",
        highlight=False,
        soft_wrap=True,
    )


def run_report(folder: Path) -> None:
    """A report from rows alone."""
    demo_report.write(demo.finished(folder), folder / "report.html")
    Console().print(f"Report: {folder / 'report.html'}", highlight=False, soft_wrap=True)


def run_train(name: str, out: Path, changes: dict[str, Any], quiet: bool, as_json: bool) -> None:
    """A training."""
    recipe = read_recipe(name, changes)
    with showing(quiet) as progress:
        weights = train(recipe, out, progress)
    card = load(weights).card
    assert card is not None
    if as_json:
        _print_json({"weights": str(weights), "card": card.model_dump()})
        return
    right = card.test_accuracy
    Console().print(
        f"{recipe.name}: {100 * right.rate:.1f} % [{100 * right.low:.1f}, {100 * right.high:.1f}] of "
        f"{right.images} test images right ({right.settings}), trained in {clock(card.wall_seconds)}\n"
        f"Weights: {weights}\nCard: {weights.with_suffix('.json')}",
        highlight=False,
        soft_wrap=True,
    )


def _console() -> Console:
    """Where results go; in a file or pipe, tables need not fit a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def _show(console: Console, table: Table) -> None:
    shown = RichTable(
        title=table.title,
        title_justify="left",
        title_style="bold",
        caption=table.note,
        caption_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for column in table.columns:
        shown.add_column(column, overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    console.print()
    console.print(shown)


def _as_json(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
        "note": table.note,
    }


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
