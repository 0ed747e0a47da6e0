"""Make the README's figure and table from the rows in results/demo.

python docs/figures.py                 write docs/tolerance.svg and the README's table anew
python docs/figures.py odefend-demo    first take the rows of that demo run into results/demo
"""

import shutil
import sys
from pathlib import Path

from pages import fill

from odefend.evaluation import Ledger, opened
from odefend.evaluation.schema import TABLES
from odefend.files import write_bytes
from odefend.report import evaluation_page, figures, tables
from odefend.report.rows import Rows
from odefend.shards import packed_rows

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


def kept() -> Rows:
    """The rows that lie in the repository."""
    return Rows.read(*opened(KEPT, "demo"))


def keep(folder: Path) -> None:
    """Copy the rows of a finished demo into results/demo, one file per table."""
    source, there = Ledger(folder / "ledger"), KEPT / "ledger"
    for table in TABLES:
        (there / table).mkdir(parents=True, exist_ok=True)
        write_bytes(there / table / "all.parquet", packed_rows(source.rows(table)))
    for old in (there / "labels").glob("*.parquet"):
        old.unlink()
    labels = source.labels("demo").select("table", "key", "evaluation", "experiment", "trial")
    Ledger(there).label(labels.iter_rows())
    shutil.copy(folder / "demo.json", KEPT / "demo.json")


def figure(rows: Rows) -> str:
    """The README's figure, on white so that it reads on dark pages as well."""
    about, (trial, at) = rows.evaluation, rows.everywhere()[0]
    svg = figures.accuracy_by_tolerance(rows.about(trial, at), about.net, about.tolerances, rows.doses, at, trial.name)
    return svg.replace("<svg ", '<svg style="background: white" ', 1) + "\n"


def parts(rows: Rows) -> dict[str, str]:
    """The README's table, and what the report says of it."""
    about, (trial, at) = rows.evaluation, rows.everywhere()[0]
    table = tables.recovery(rows.about(trial, at), about.net, about.tolerances, rows.doses, at, trial.name)
    chosen = [table.columns.index(name) for name in COLUMNS]
    lines = [[line[i] for i in chosen] for line in (table.columns, *table.rows)]
    lines.insert(1, ["---"] * len(chosen))
    text = ["| " + " | ".join(line) + " |" for line in lines]
    lessons = evaluation_page.lessons(rows)
    return {"rows": "\n".join([*text, "", "What the report says:", "", *(f"- {lesson}" for lesson in lessons)])}


def main() -> None:
    """Write everything that is generated."""
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]))
    rows = kept()
    (ROOT / "docs" / "tolerance.svg").write_text(figure(rows), encoding="utf-8")
    fill(ROOT / "README.md", parts(rows))


if __name__ == "__main__":
    main()
