"""Make the README's figure and table from the rows in results/demo.

python docs/figures.py                 write docs/tolerance.svg and the README's table anew
python docs/figures.py odefend-demo    first take the rows of that demo run into results/demo
"""

import re
import sys
from pathlib import Path

from odefend.evaluation import Ledger
from odefend.evaluation.ledger import TABLES
from odefend.report import figures, tables
from odefend.studies import demo, demo_report

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "results" / "demo"
COLUMNS = (
    "tolerance",
    "clean accuracy",
    "C&W won back, s = 1",
    "noise of equal dose (sigma)",
    "noise wins back, s = 1",
    "won back, s = 1.1",
    "won back, s = 1.25",
)


def keep(folder: Path) -> None:
    """Copy the rows of a finished demo into results/demo, one file per table."""
    source = Ledger(folder / "ledger")
    for table in TABLES:
        (KEPT / table).mkdir(parents=True, exist_ok=True)
        source.read(table).write_parquet(KEPT / table / "all.parquet")


def figure(rows: demo_report.Rows) -> str:
    """The README's figure, on white so that it reads on dark pages as well."""
    svg = figures.accuracy_by_tolerance(rows.judged, demo.ODE, demo.TOLERANCES, rows.sigmas, demo.ATTACKED_AT)
    return svg.replace("<svg ", '<svg style="background: white" ', 1) + "\n"


def block(rows: demo_report.Rows) -> str:
    """The README's table, and what the report says of it."""
    table = tables.recovery(rows.judged, demo.ODE, demo.TOLERANCES, rows.sigmas, demo.ATTACKED_AT)
    chosen = [table.columns.index(name) for name in COLUMNS]
    lines = [[line[i] for i in chosen] for line in (table.columns, *table.rows)]
    lines.insert(1, ["---"] * len(chosen))
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*text, "", "What the report says:", "", *(f"- {lesson}" for lesson in demo_report.lessons(rows))])


def filled(readme: str, rows: demo_report.Rows) -> str:
    """The README with what is generated in it made anew."""
    pattern = r"(<!-- rows -->\n).*?(<!-- end of rows -->)"
    text, count = re.subn(pattern, lambda m: f"{m[1]}{block(rows)}\n{m[2]}", readme, flags=re.S)
    if count != 1:
        raise ValueError(f"README.md: expected one pair of markers for rows, found {count}")
    return text


def main() -> None:
    """Write everything that is generated."""
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    rows = demo_report.Rows(Ledger(KEPT))
    (ROOT / "docs" / "tolerance.svg").write_text(figure(rows), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
