"""The tables of an experiment, from its rows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import polars as pl

from odefend.errors import unknown
from odefend.experiments.expand import several
from odefend.experiments.parts import Cell, Experiment, Row, TablePart
from odefend.metrics.measures import attacked_or_wrong
from odefend.metrics.rows import OF_ATTACKS, Rows
from odefend.report.cells import Filled, fill, wanted
from odefend.report.images import those
from odefend.report.table import Table

NAMED = {"model": "models", "attack": "attacks", "detector": "detectors", "data": "data"}
"""What has names, in the order of the experiment; all else has numbers, in their order."""


def table(part: TablePart, rows: Rows, experiment: Experiment) -> Table:
    """One table, filled."""
    lines = list(_lines(part, rows, experiment))
    rows = shared(part, rows, lines)
    filled = [(labels, filled_line(part, line, rows)) for line, labels in lines]
    if part.sort:
        at = _position(part)
        filled.sort(key=lambda one: _size(one[1][at]), reverse=True)
    cells = [line for _, line in filled]
    heads = part.heads or tuple(name for name in part.rows if isinstance(name, str)) or ("",)
    printed = {head: [None if one is None else f"{one:g}" for one in values] for head, values in part.published.items()}
    columns, body = [*heads], [list(labels) for labels, _ in filled]
    for number, column in enumerate(part.columns):
        if column.head in printed:
            columns.append(f"{column.head}, published")
            for line, value in zip(body, printed[column.head], strict=False):
                line.append(value or "-")
        columns.append(column.head)
        for line, found in zip(body, cells, strict=True):
            line.append(found[number].text)
    return Table(part.title, tuple(columns), tuple(map(tuple, body)), _note(part, rows), _numbers(part, cells))


def shared(part: TablePart, rows: Rows, lines: Sequence[tuple[Row, tuple[str, ...]]]) -> Rows:
    """The rows of the images that a table is about."""
    if part.same_images is not True:
        return rows
    sides = [cell for line, _ in lines for cell in (line, line.other) if cell]
    return rows.of_images(_common(rows, [wanted(part.where, cell) for cell in sides]))


def filled_line(part: TablePart, line: Row, rows: Rows) -> list[Filled]:
    """The cells of one row."""
    if part.same_images == "row":
        rows = rows.of_images(_common(rows, [wanted(part.where, line, column) for column in part.columns]))
    return [fill(rows, column, part.where, line) for column in part.columns]


def _position(part: TablePart) -> int:
    """Of the column that rows are sorted by."""
    known = [column.head for column in part.columns]
    if part.sort not in known:
        raise unknown(f"column to sort {part.title} by", part.sort, known)
    return known.index(part.sort)


def _size(cell: Filled) -> float:
    return cell.value.value if cell.value is not None and cell.value.n else -math.inf


def _common(rows: Rows, cells: Sequence[Mapping[str, Any]]) -> set[str]:
    """The images that every attack of each of these cells was tried on, as far as there are any."""
    tried = [set(attacked_or_wrong(rows.where(cell))["image"].cast(pl.String)) for cell in cells]
    return set.intersection(*filter(None, tried)) if any(tried) else set()


def _note(part: TablePart, rows: Rows) -> str:
    mine = rows.where(wanted(part.where))
    about = [mine.crafted] if mine.crafted.height else [mine.judged, mine.certified]
    note = part.note.replace("{images}", those({one for some in about for one in some["image"].cast(pl.String)}))
    return " ".join(one for one in (note, f"Published: {part.source}." if part.source else "") if one)


def _numbers(part: TablePart, cells: Sequence[Sequence[Filled]]) -> tuple[dict[str, Any], ...]:
    """The numbers behind the texts, row by row, by the head of their column."""
    return tuple(
        {
            column.head: vars(cell.value)
            for column, cell in zip(part.columns, line, strict=True)
            if cell.value is not None
        }
        for line in cells
    )


def _lines(part: TablePart, rows: Rows, experiment: Experiment) -> Iterator[tuple[Row, tuple[str, ...]]]:
    """The rows of a table, with what labels them."""
    if all(isinstance(row, Row) for row in part.rows):
        yield from said_lines(part)
        return
    names = [name for name in part.rows if isinstance(name, str)]
    grids = [_values(name, rows.where(wanted(part.where)), experiment, part.where) for name in names]
    for point in product(*grids):
        cell = Row(**{name: value for name, value in zip(names, point, strict=True) if value is not None})
        found = rows.where(wanted(part.where, cell) | _absent(names, point))
        if found.attacked if set(names) & set(OF_ATTACKS) else not found.empty:
            yield cell, tuple(_told(value) for value in point)


def said_lines(part: TablePart) -> list[tuple[Row, tuple[str, ...]]]:
    """The rows of a table that says each of them."""
    return [(row, tuple(several(row.label))) for row in part.rows if isinstance(row, Row)]


def _absent(names: Sequence[str], point: Sequence[Any]) -> dict[str, Any]:
    """Numbers that a row does not have, such as the tolerance of a net without a solver."""
    return {name: [None] for name, value in zip(names, point, strict=True) if value is None}


def _values(name: str, rows: Rows, experiment: Experiment, where: Cell) -> list[Any]:
    if given := several(getattr(where, name)):
        return list(given)
    if name in NAMED:
        return list(getattr(experiment, NAMED[name]))
    found = pl.concat([part.to_frame() for part in rows.column(name)]).to_series().unique().sort(nulls_last=True)
    return found.to_list()


def _told(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:g}"
