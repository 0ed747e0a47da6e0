"""Two evaluations side by side."""

from pathlib import Path

import polars as pl

from odefend.cli.output import print_json, show
from odefend.errors import OutputError
from odefend.evaluation import evaluations_in, opened
from odefend.evaluation.compare import compare
from odefend.report import Table
from odefend.report.tables import points


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
    show(table)
