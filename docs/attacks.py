"""Fill the tables of docs/attacks.md from the rows in results/attacks.

python docs/attacks.py                          write the page's tables anew
python docs/attacks.py odefend-study-attacks    first take the rows of that study
"""

import sys
from pathlib import Path

from kept import RESULTS, keep
from pages import fill

from odefend.evaluation import Ledger
from odefend.studies import attacks_report

PAGE = Path(__file__).parent / "attacks.md"


def parts() -> dict[str, str]:
    """The page's tables by their titles, from the committed rows."""
    tables = attacks_report.summary(attacks_report.Rows.of(Ledger(RESULTS / "attacks")))
    return {table.title: table.markdown for table in tables}


def main() -> None:
    """Write what is generated."""
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        keep(folder, Ledger(folder).labels()["evaluation"][0].split("-")[0])
    fill(PAGE, parts())


if __name__ == "__main__":
    main()
