"""Rows of finished studies, kept under results/."""

from pathlib import Path

from odefend.evaluation import Ledger
from odefend.evaluation.schema import TABLES

RESULTS = Path(__file__).parent.parent / "results"


def keep(folder: Path, name: str) -> None:
    """Copy the rows of a finished study to results/NAME, one file per table, in place of what is there."""
    source, kept = Ledger(folder), RESULTS / name
    for old in kept.rglob("*.parquet"):
        old.unlink()
    for table in TABLES:
        rows = source.rows(table)
        if rows.height:
            (kept / table).mkdir(parents=True, exist_ok=True)
            rows.write_parquet(kept / table / "all.parquet")
    Ledger(kept).label(source.labels().iter_rows())
