"""The rows of an experiment, read once, and parts of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import polars as pl

from odefend.errors import OutputError
from odefend.ledger import Ledger

UNUSED = ("data_digest", "net_digest", "training_seed", "gradient", "end", "method", "coupling", "precision", "atol",
          "code_version", "schema_version")  # fmt: skip
"""Columns that tell how rows came about: of crafted rows they are kept, of a million others they would fill the memory."""

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "crafted": {"tolerance": "rtol", "attacked_at": "rtol"},
    "judged": {"tolerance": "rtol"},
    "scored": {"tolerance": "rtol"},
    "certified": {"tolerance": "rtol"},
    "traced": {"tolerance": "rtol", "attacked_at": "rtol"},
}
"""Columns that have another name in a table than in a cell."""


@dataclass(frozen=True)
class Rows:
    """The tables of one experiment, with what each row is for: the name of its model, attack, measure and data.

    Rows of adversarial images have the tolerance (`attacked_at`), the radius (`epsilon`) and the model (`attacked`) that they were
    made at.
    """

    crafted: pl.DataFrame
    judged: pl.DataFrame
    scored: pl.DataFrame
    certified: pl.DataFrame
    traced: pl.DataFrame

    @classmethod
    def read(cls, ledger: Ledger, experiment: str | None = None) -> "Rows":
        """From a ledger: of one experiment by its name, or of all. Raises OutputError where rows of several codes are mixed."""
        crafted = small(ledger.read("crafted", experiment, ("history",)))
        codes = crafted.group_by("attack").agg(pl.col("code_version").n_unique())
        if mixed := codes.filter(pl.col("code_version") > 1)["attack"].to_list():
            raise OutputError(
                f"{ledger.folder}: expected rows of one code for each attack of {experiment}, found those of several for "
                f"{mixed[0]}: each image would count several times. Merge only ledgers made by the same odefend and torch."
            )
        made = crafted.select(pl.col("key").alias("crafted"), "epsilon", attacked_at="rtol", attacked="model").unique()
        others = []
        for name in ("judged", "scored", "certified", "traced"):
            rows = small(ledger.read(name, experiment, UNUSED))
            others.append(rows.join(made, on="crafted", how="left") if "crafted" in rows.columns else rows)
        return cls(crafted, *others)

    def where(self, cell: Mapping[str, Any]) -> "Rows":
        """The rows with these values; a table that does not have a column keeps all its rows. None asks for nothing."""
        return replace(self, **{field.name: self._part(field.name, cell) for field in fields(self)})

    def judging(self) -> "Rows":
        """What models judged, without what they were attacked by."""
        return replace(self, crafted=self.crafted.clear(), scored=self.scored.clear(), traced=self.traced.clear())

    @property
    def empty(self) -> bool:
        """Whether no table has rows."""
        return not any(getattr(self, field.name).height for field in fields(self))

    def column(self, name: str) -> list[pl.Series]:
        """The values of a cell's column in all tables that have it."""
        found = []
        for field in fields(self):
            table: pl.DataFrame = getattr(self, field.name)
            column = COLUMNS[field.name].get(name, name)
            if column in table.columns:
                found.append(table[column].alias(name))
        return found

    def _part(self, table: str, cell: Mapping[str, Any]) -> pl.DataFrame:
        rows: pl.DataFrame = getattr(self, table)
        for name, value in cell.items():
            column = COLUMNS[table].get(name, name)
            # What was crafted is no measure's.
            if value is None or column not in rows.columns or (table, name) == ("crafted", "measure"):
                continue
            wanted = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            rows = rows.filter(pl.col(column).is_in(wanted, nulls_equal=True))
        return rows


def small(rows: pl.DataFrame) -> pl.DataFrame:
    """Half the memory: whole numbers in four bytes, and names, which repeat, too."""
    return rows.with_columns(pl.col(pl.String).cast(pl.Categorical), pl.col(pl.Int64).cast(pl.Int32))


def attacked(crafted: pl.DataFrame) -> pl.DataFrame:
    """The rows of images that the net had right, and that were therefore attacked."""
    return crafted.filter(~pl.col("initially_wrong"))


def fooled() -> pl.Expr:
    """Answered, and wrongly: a failed solve is neither right nor fooled."""
    return ~pl.col("correct") & (pl.col("status") == 0)
