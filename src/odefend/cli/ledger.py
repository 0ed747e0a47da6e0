"""Ledgers: what they hold, queries, merging, verification."""

from pathlib import Path

import polars as pl

from odefend.cli.console import write
from odefend.cli.output import print_json, say, show
from odefend.engine.verify import verify
from odefend.errors import OutputError
from odefend.ledger import Ledger
from odefend.ledger.schema import COLUMNS, TABLES
from odefend.report import Table
from odefend.report.table import no_formula


def ledger_at(folder: Path) -> Ledger:
    """The ledger in a folder, or in its folder `ledger`."""
    for place in (folder, folder / "ledger"):
        if any((place / table).is_dir() for table in TABLES):
            return Ledger(place)
    raise OutputError(f"{folder}: expected a folder with a ledger, found none.")


def run_query(folder: Path, sql: str, as_json: bool) -> None:
    """The answer to a query, as CSV or JSON."""
    found = ledger_at(folder).query(sql)
    if as_json:
        print_json(found.to_dicts())
        return
    nested = [name for name, kind in found.schema.items() if isinstance(kind, pl.List)]
    shown = found.with_columns(pl.col(name).list.eval(pl.element().cast(pl.String)).list.join(" ") for name in nested)
    shown = shown.with_columns(pl.col(pl.String).map_elements(no_formula, return_dtype=pl.String))
    write(shown.write_csv())


def run_columns(as_json: bool) -> None:
    """Every column, and what it means."""
    if as_json:
        print_json(COLUMNS)
        return
    for table, columns in COLUMNS.items():
        show(Table(table, ("column", "meaning"), tuple(columns.items()), ""))


def run_merge(into: Path, folders: list[Path]) -> None:
    """Take over the rows of other ledgers."""
    target = Ledger(into / "ledger" if (into / "ledger").is_dir() else into)
    for folder in folders:
        came = target.merge(ledger_at(folder))
        say(f"{folder}: {came} shards taken")


def run_pack(folder: Path) -> None:
    """Few files instead of many."""
    packed = ledger_at(folder).pack()
    say(f"{folder}: {packed} shards packed")


def run_verify(folder: Path, sample: int, seed: int, as_json: bool) -> int:
    """Judge stored images again; the exit status is 1 where rows are contradicted."""
    found = verify(ledger_at(folder), sample, seed)
    if as_json:
        print_json({"compared": found.compared, "contradicted": found.contradicted, "left_out": found.left_out})
    else:
        for key, image in found.contradicted:
            say(f"{key}: {image}: the net now says otherwise")
        say(f"{found.compared} rows judged again, {len(found.contradicted)} contradicted.")
        if found.left_out:
            say(
                f"{found.left_out} rows left out: an older odefend wrote them, and they do not tell all that decided them."
            )
    return 1 if found.contradicted else 0
