"""The demo and its report."""

import time
from pathlib import Path

from rich.console import Console

from odefend.cli.output import console, print_json, show, table_json
from odefend.cli.progress import clock, showing
from odefend.studies import demo, demo_report


def run_demo(out: Path, images: int, workers: int | None, quiet: bool, as_json: bool) -> None:
    """The demo and its report."""
    began = time.monotonic()
    with showing(quiet) as progress:
        ledger = demo.measure(out, demo.Demo(images=images), progress, workers)
    seconds = time.monotonic() - began
    rows = demo_report.write(ledger, out / "report.html", seconds)
    if as_json:
        print_json(
            {
                "report": str(out / "report.html"),
                "ledger": str(ledger.folder),
                "seconds": round(seconds, 1),
                "findings": demo_report.lessons(rows),
                "tables": [table_json(table) for table in demo_report.summary(rows)],
            }
        )
        return
    terminal = console()
    for table in demo_report.summary(rows):
        show(terminal, table)
    terminal.print("\n[bold]What was found[/bold]")
    for lesson in demo_report.lessons(rows):
        terminal.print(f"- {lesson}", highlight=False, soft_wrap=not terminal.is_terminal)
    terminal.print(
        f"\nReport: {out / 'report.html'}\nLedger: {ledger.folder}\nTime: {clock(time.monotonic() - began)}",
        highlight=False,
        soft_wrap=True,
    )


def run_report(folder: Path) -> None:
    """A report from rows alone."""
    demo_report.write(demo.finished(folder), folder / "report.html")
    Console().print(f"Report: {folder / 'report.html'}", highlight=False, soft_wrap=True)
