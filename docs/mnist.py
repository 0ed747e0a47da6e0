"""Write docs/mnist.md and its figure from the rows in results/mnist.

python docs/mnist.py                    write them anew
python docs/mnist.py FOLDER             first take the rows of `odefend evaluate examples/mnist.toml --out FOLDER`
"""

import shutil
import sys
from pathlib import Path

import polars as pl
from pages import fill

from odefend.evaluation import Ledger, opened
from odefend.evaluation.robustness import attacked
from odefend.intervals import rate
from odefend.report import evaluation_page, evaluation_tables, figures
from odefend.report.page import write_page
from odefend.report.published import pairs, published_table
from odefend.report.rows import Rows
from odefend.report.table import Table

ROOT = Path(__file__).parent.parent
KEPT, PAGE, FIGURE = ROOT / "results" / "mnist", ROOT / "docs" / "mnist.md", ROOT / "docs" / "mnist.svg"


def keep(folder: Path) -> None:
    """Copy a finished evaluation without its images, packed."""
    shutil.rmtree(KEPT, ignore_errors=True)
    for table in ("crafted", "judged", "labels"):
        shutil.copytree(folder / "ledger" / table, KEPT / "ledger" / table)
    Ledger(KEPT / "ledger").pack()
    shutil.copy(folder / "mnist.json", KEPT / "mnist.json")


def kept() -> Rows:
    """The committed rows."""
    return Rows.read(*opened(KEPT, "mnist"))


def figure(rows: Rows) -> str:
    """The basic iterative attack by tolerance: in print, and here."""
    found = [pair for pair in pairs(rows) if pair.printed.trial == "BIM" and pair.tolerance is not None]
    points = [
        (f"radius {pair.printed.epsilon:g}", pair.tolerance or 0.0, pair.success, pair.measured) for pair in found
    ]
    svg = figures.published(points, "BIM")
    return svg.replace("<svg ", '<svg style="background: white" ', 1) + "\n"  # reads on dark pages as well


def by_the_adjoint(rows: Rows) -> Table:
    """The same attack by both gradients, on the same images, beside what is in print."""
    printed = {
        pair.tolerance: pair.success
        for pair in pairs(rows)
        if (pair.printed.trial, pair.printed.epsilon) == ("BIM", 0.3)
    }
    cells = []
    for tolerance, success in printed.items():
        adjoint = attacked(rows.made("BIM by the adjoint", epsilon=0.3, at=tolerance))
        own = attacked(rows.made("BIM", epsilon=0.3, at=tolerance)).filter(
            pl.col("image").is_in(adjoint["image"].to_list())
        )
        shares = [rate(int(made["success"].sum()), made.height).percent for made in (adjoint, own)]
        cells.append((f"{tolerance:g}", f"{100 * success:.0f} %", *shares))
    return Table(
        "BIM of radius .3 by two gradients",
        ("tolerance", "in print", "by the adjoint at that tolerance", "through the steps of the solve"),
        tuple(cells),
        "Success, of the same images in both columns that were measured.",
    )


def parts(rows: Rows) -> dict[str, str]:
    """What is generated in the page: tables by their titles, and the findings."""
    searched = [evaluation_tables.of_recovery(rows, trial, at) for trial, at in rows.everywhere()]
    tables = [by_the_adjoint(rows), evaluation_tables.of_nets(rows), published_table(rows), *searched]
    found = "\n".join(f"- {lesson}" for lesson in evaluation_page.lessons(rows))
    return {table.title: table.markdown for table in tables} | {"What was found": found}


def main() -> None:
    """Write what is generated."""
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    rows = kept()
    write_page(evaluation_page.page(rows), KEPT / "mnist.html")
    FIGURE.write_text(figure(rows), encoding="utf-8")
    fill(PAGE, parts(rows))


if __name__ == "__main__":
    main()
