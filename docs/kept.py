"""Rows of finished studies, kept under results/."""

from pathlib import Path

import polars as pl

from odefend.evaluation import Ledger
from odefend.evaluation.schema import TABLES
from odefend.files import write_bytes
from odefend.shards import packed_rows

RESULTS = Path(__file__).parent.parent / "results"


def keep(folder: Path, name: str, beginning: str = "") -> None:
    """Copy the rows of a finished study to results/NAME, one file per table, in place of what is there: of the only evaluation
    whose name has that beginning. Raises ValueError where there is none, or several, whose rows must not be mixed."""
    source, kept = Ledger(folder), RESULTS / name
    labels = source.labels().filter(pl.col("evaluation").str.starts_with(beginning))
    if len(found := labels["evaluation"].unique().to_list()) != 1:
        raise ValueError(
            f"{folder}: expected one evaluation {beginning}*, got {found}. Name the folder of a study, and run each in its own."
        )
    for old in kept.rglob("*.parquet"):
        old.unlink()
    for table in TABLES:
        rows = source.rows(table).filter(pl.col("key").is_in(labels.filter(table=table)["key"].to_list()))
        if rows.height:
            (kept / table).mkdir(parents=True, exist_ok=True)
            write_bytes(kept / table / "all.parquet", packed_rows(rows))
    Ledger(kept).label(labels.iter_rows())
