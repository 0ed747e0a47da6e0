"""Results on standard output: tables for people, JSON for programs."""

import json
import math
import sys
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from odefend.report import Table

WIDE = 170


def console() -> Console:
    """Where results go; in a file or pipe, tables need not fit a terminal."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=WIDE)


def show(where: Console, table: Table) -> None:
    """A table, as wide as it needs."""
    shown = RichTable(
        title=Text(table.title),
        title_justify="left",
        title_style="bold",
        caption=Text(table.note),
        caption_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for column in table.columns:
        shown.add_column(Text(column), overflow="fold")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    where.print()
    where.print(shown)


def table_json(table: Table) -> dict[str, Any]:
    """A table for a program."""
    return {
        "title": table.title,
        "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
        "note": table.note,
    }


def print_json(value: Any) -> None:
    """A value for a program."""
    sys.stdout.write(json.dumps(_finite(value), indent=2) + "\n")


def _finite(value: Any) -> Any:
    """JSON knows no infinity: such numbers become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
