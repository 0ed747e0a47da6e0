"""Fill the tables of docs/attacks.md from the rows in results/attacks.

python docs/attacks.py                          write the page's tables anew
python docs/attacks.py odefend-study-attacks    first take the rows of that study into results/attacks
"""

import re
import sys
from pathlib import Path

from odefend.evaluation import Ledger
from odefend.evaluation.schema import TABLES
from odefend.studies import attacks_report

ROOT = Path(__file__).parent.parent
KEPT, PAGE = ROOT / "results" / "attacks", ROOT / "docs" / "attacks.md"


def keep(folder: Path) -> None:
    """Copy the rows of a finished study, one file per table."""
    source = Ledger(folder)
    for table in TABLES:
        rows = source.rows(table)
        if rows.height:
            (KEPT / table).mkdir(parents=True, exist_ok=True)
            rows.write_parquet(KEPT / table / "all.parquet")
    for old in (KEPT / "labels").glob("*.parquet"):
        old.unlink()
    Ledger(KEPT).label(source.labels().iter_rows())


def filled(page: str, rows: attacks_report.Rows) -> str:
    """The page with its tables made anew: each stands between a marker with its title and an end."""
    for table in attacks_report.summary(rows):
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
    rows = attacks_report.Rows.of(Ledger(KEPT))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
