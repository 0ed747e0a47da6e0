"""Ledgers: what they hold, queries, merging, verification."""

import sys
from pathlib import Path

import polars as pl

from odefend.cli.output import console, print_json, show
from odefend.errors import OutputError
from odefend.evaluation import Ledger, evaluations_in, opened
from odefend.evaluation.compare import compare
from odefend.evaluation.schema import COLUMNS, TABLES
from odefend.evaluation.verify import verify
from odefend.report import Table
from odefend.report.tables import points


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
    sys.stdout.write(shown.write_csv())


def run_columns(as_json: bool) -> None:
    """Every column, and what it means."""
    if as_json:
        print_json(COLUMNS)
        return
    for table, columns in COLUMNS.items():
        show(console(), Table(table, ("column", "meaning"), tuple(columns.items()), ""))


def run_merge(into: Path, folders: list[Path]) -> None:
    """Take over the rows of other ledgers."""
    target = Ledger(into / "ledger" if (into / "ledger").is_dir() else into)
    for folder in folders:
        came = target.merge(ledger_at(folder))
        console().print(f"{folder}: {came} shards taken", highlight=False, soft_wrap=True)


def run_pack(folder: Path) -> None:
    """Few files instead of many."""
    packed = ledger_at(folder).pack()
    console().print(f"{folder}: {packed} shards packed", highlight=False, soft_wrap=True)


def run_verify(folder: Path, sample: int, seed: int, as_json: bool) -> int:
    """Judge stored images again; the exit status is 1 where rows are contradicted."""
    found = verify(ledger_at(folder), sample, seed)
    if as_json:
        print_json({"compared": found.compared, "contradicted": found.contradicted})
    else:
        for key, image in found.contradicted:
            console().print(f"{key}: {image}: the net now says otherwise", highlight=False, soft_wrap=True)
        console().print(
            f"{found.compared} images judged again, {len(found.contradicted)} contradict their rows.", highlight=False
        )
    return 1 if found.contradicted else 0


def run_compare(first: Path, second: Path, as_json: bool) -> None:
    """Two evaluations side by side."""
    sides = []
    for folder in (first, second):
        names = evaluations_in(folder)
        if not names:
            raise OutputError(f"{folder}: expected a folder that `odefend evaluate` wrote, found none.")
        if len(names) > 1:
            raise OutputError(f"{folder}: expected one evaluation, found {', '.join(names)}.")
        evaluation, ledger, _ = opened(folder, names[0])
        # A net without a solver is set beside the tolerance that its evaluation is about.
        rows = [
            ledger.read(table, evaluation.name).with_columns(pl.col("rtol").fill_null(evaluation.tolerance))
            for table in ("crafted", "judged")
        ]
        sides.append((evaluation, tuple(frame.filter(pl.col("net") == evaluation.net) for frame in rows)))
    found = compare(sides[0][1], sides[1][1])
    if not found:
        raise OutputError(f"{first} and {second}: expected attacks of one name on the same images, found none in both.")
    table = Table(
        f"{sides[0][0].net} ({first}) beside {sides[1][0].net} ({second})",
        ("share of images", "first", "second", "difference, points", "images", "p"),
        tuple(
            (
                one.what,
                one.first.percent,
                one.second.percent,
                points(one.difference),
                str(one.difference.n),
                f"{one.p_value:.2g}",
            )
            for one in found
        ),
        "Paired by image; attacks on images that both nets had right. p: exact McNemar test, not corrected for the number of "
        "rows.",
    )
    if as_json:
        print_json(
            [{**vars(one), **{k: vars(getattr(one, k)) for k in ("first", "second", "difference")}} for one in found]
        )
        return
    show(console(), table)
