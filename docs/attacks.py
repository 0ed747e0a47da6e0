"""Fill the tables of docs/attacks.md from the rows in results/attacks and results/presets.

python docs/attacks.py                          write the page's tables anew
python docs/attacks.py odefend-study-attacks    first take the rows of that study, or of odefend-study-presets
"""

import re
import sys
from pathlib import Path

import polars as pl

from odefend.evaluation import Ledger
from odefend.evaluation.schema import TABLES
from odefend.report import Table
from odefend.studies import attacks_report, presets

ROOT = Path(__file__).parent.parent
PAGE, RESULTS = ROOT / "docs" / "attacks.md", ROOT / "results"


def keep(folder: Path) -> None:
    """Copy the rows of a finished study to the place of its name, one file per table."""
    source = Ledger(folder)
    kept = RESULTS / source.labels()["evaluation"][0].split("-")[0]
    for table in TABLES:
        rows = source.rows(table)
        if rows.height:
            (kept / table).mkdir(parents=True, exist_ok=True)
            rows.write_parquet(kept / table / "all.parquet")
    for old in (kept / "labels").glob("*.parquet"):
        old.unlink()
    Ledger(kept).label(source.labels().iter_rows())


def tables() -> list[Table]:
    """Those of the committed rows."""
    searches = Ledger(RESULTS / "presets").read("crafted")
    images = searches.filter(pl.col("net") == "mnist-oon")["image"].n_unique()
    trials = attacks_report.summary(attacks_report.Rows.of(Ledger(RESULTS / "attacks")))
    return [*trials, presets.summary(searches, presets.subjects(images))]


def filled(page: str) -> str:
    """The page with its tables made anew: each stands between a marker with its title and an end."""
    for table in tables():
        page, count = re.subn(
            rf"(<!-- {re.escape(table.title)} -->\n).*?(<!-- end -->)",
            lambda m, t=table: f"{m[1]}{t.markdown}\n{m[2]}",
            page,
            flags=re.S,
        )
        if count != 1:
            raise ValueError(f"docs/attacks.md: expected one pair of markers for {table.title!r}, found {count}")
    return page


def main() -> None:
    """Write what is generated."""
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
