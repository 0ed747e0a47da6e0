"""Results on standard output: tables and lines for people, JSON for programs."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from odefend.cli.console import printable, write, written
from odefend.report import Table

GAP = 2
"""Spaces between columns."""

WORD = re.compile(r"\[[^\[\]]*\]\S*|\S+")
"""What is not cut: a word, or an interval in its brackets."""


def show(*tables: Table) -> None:
    """Tables, each with its title above and its note below, in the width of the terminal (80 columns where there is none, or
    $COLUMNS). One that does not fit without words being cut has its rows below each other instead."""
    for table in tables:
        _print(lambda where, table=table: _draw(where, table))


def say(*lines: str) -> None:
    """Lines as they are: paths in them are never broken, so that they can be copied."""
    _print(lambda where: [where.print(_text(line), soft_wrap=True) for line in lines])


def paragraphs(title: str, texts: tuple[str, ...]) -> None:
    """Sentences below a title, broken at words."""
    _print(
        lambda where: [
            where.print("\n", Text(title, "bold"), sep=""),
            *(where.print(_text(f"- {one}")) for one in texts),
        ]
    )


def print_json(value: Any) -> None:
    """A value for a program."""
    write(json.dumps(finite(value), indent=2) + "\n")


def _print(draw: Callable[[Console], object]) -> None:
    written(lambda: draw(Console(highlight=False)))


def _text(text: str) -> Text:
    return Text(printable(text))


def _cell(text: str, width: int | None = None) -> Text:
    """A cell on one line, or, where it is wider than its column, with an interval on a line of its own."""
    line = printable(text).replace("\n", " ")
    return Text(line if width is None or cell_len(line) <= width else line.replace(" [", "\n["))


def _draw(where: Console, table: Table) -> None:
    where.print()
    where.print(Text(printable(table.title), "bold"))
    widths = _widths(table, where.width)
    if widths:
        shown = RichTable(box=None, pad_edge=False, header_style="bold")
        for column, width in zip(table.columns, widths, strict=True):
            shown.add_column(_cell(column), width=width)
        for row in table.rows:
            shown.add_row(*map(_cell, row, widths))
        where.print(shown)
    for first, *others in () if widths else table.rows:
        where.print(_cell(first or "-"), soft_wrap=True)
        pairs = zip(table.columns[1:], others, strict=True)
        told = "; ".join(f"{head}: {cell}" for head, cell in pairs if cell)
        where.print(Padding(_cell(told), (0, 0, 0, 2)))
    if table.note:
        where.print(_text(table.note))


def _widths(table: Table, room: int) -> list[int]:
    """How wide each column is, so that no word is cut; none where there is no room for that.

    What is left beyond the longest words goes where a cell would have most lines.
    """
    columns = [list(map(printable, cells)) for cells in zip(table.columns, *table.rows, strict=True)]
    wanted = [max(map(cell_len, cells)) for cells in columns]
    widths = [max(cell_len(word) for cell in cells for word in ("", *WORD.findall(cell))) for cells in columns]
    left = room - sum(widths) - GAP * (len(widths) - 1)
    for _ in range(left):
        narrowest = max(range(len(widths)), key=lambda at: wanted[at] / max(1, widths[at]))
        widths[narrowest] += int(widths[narrowest] < wanted[narrowest])
    return widths if left >= 0 else []


def table_json(table: Table) -> dict[str, Any]:
    """A table for a program."""
    return {
        "title": table.title,
        "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
        "note": table.note,
        **({"numbers": list(table.numbers)} if table.numbers else {}),
    }


def finite(value: Any) -> Any:
    """JSON knows no infinity: such numbers become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value
