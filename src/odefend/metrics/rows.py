"""The rows of an experiment, read once, and parts of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from odefend.errors import OutputError
from odefend.ledger import Ledger

UNUSED = ("data_digest", "net_digest", "training_seed", "gradient", "end", "method", "coupling", "precision", "atol",
          "code_version", "schema_version")  # fmt: skip
"""Columns that tell how rows came about: of crafted rows they are kept, of a million others they would fill the memory."""

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "crafted": {"tolerance": "rtol", "attacked_at": "rtol", "made_on": "model", "detector": "past"},
    "judged": {"tolerance": "rtol", "detector": "past"},
    "scored": {"tolerance": "rtol"},
    "certified": {"tolerance": "rtol"},
    "traced": {"tolerance": "rtol", "attacked_at": "rtol"},
}
"""The tables, and the columns that have another name in them than in a cell."""

ASKED = {"alarms": "allowed", "radius": "radius"}
"""What a cell says of its metric rather than of rows, and the field that keeps it; of several values the least."""

OF_ATTACKS = ("attack", "made_on", "epsilon", "attacked_at", "scale", "role")
"""What only attacked images have."""


@dataclass(frozen=True)
class Rows:
    """The tables of one experiment, with what each row is for: the name of its model, attack, measure and data.

    Rows of adversarial images have the tolerance (`attacked_at`), the radius (`epsilon`) and the model (`made_on`) that they were
    made at.
    """

    crafted: pl.DataFrame
    judged: pl.DataFrame
    scored: pl.DataFrame
    certified: pl.DataFrame
    traced: pl.DataFrame
    allowed: float = 0.05
    """The share of false alarms that thresholds of detectors are set for."""
    radius: float = 0.0
    """The L2 distance within which certificates have to hold."""

    @classmethod
    def read(cls, ledger: Ledger, experiment: str | None = None) -> "Rows":
        """From a ledger: of one experiment by its name, or of all. Raises OutputError where rows of several codes are mixed."""
        search = pl.col("epsilon").is_null()
        crafted = small(ledger.read("crafted", experiment)).with_columns(pl.when(search).then("history"))
        codes = crafted.group_by("attack").agg(pl.col("code_version").n_unique())
        if mixed := codes.filter(pl.col("code_version") > 1)["attack"].to_list():
            raise OutputError(
                f"{ledger.folder}: expected rows of one code for each attack of {experiment}, found those of several for "
                f"{mixed[0]}: each image would count several times. Merge only ledgers made by the same odefend and torch."
            )
        made = crafted.select(pl.col("key").alias("crafted"), "epsilon", attacked_at="rtol", made_on="model").unique()
        others = []
        for name in ("judged", "scored", "certified", "traced"):
            rows = small(ledger.read(name, experiment, UNUSED))
            others.append(rows.join(made, on="crafted", how="left") if "crafted" in rows.columns else rows)
        return cls(crafted, *others)

    def where(self, cell: Mapping[str, Any]) -> "Rows":
        """The rows with these values; a table that does not have a column keeps all its rows. None asks for nothing.

        Clean images are what attacked ones are set against, so what is asked of attacks (which, at what radius or scale) leaves
        them in, as attacks that know no detector are left in beside those that know one, and calibration images beside all.
        Of several shares of false alarms the least is allowed.
        """
        parts = {name: self._part(name, cell) for name in COLUMNS}
        given = {field: min(_several(cell[name])) for name, field in ASKED.items() if cell.get(name) is not None}
        return replace(self, **parts, **given)

    def of_images(self, images: Collection[str]) -> "Rows":
        """The rows of these images, and those of the calibration images."""
        chosen = pl.col("image").cast(pl.String).is_in(sorted(images))
        parts = {name: getattr(self, name).filter(chosen) for name in COLUMNS}
        return replace(self, **parts | {"scored": self.scored.filter(chosen | (pl.col("kind") == "calibration"))})

    def shown(self) -> "Rows":
        """These rows, and of those crafted only what others of them were made of: what these measures are about, whatever else was
        crafted since."""
        tables = (rows["crafted"] for name in COLUMNS if "crafted" in (rows := getattr(self, name)).columns)
        return replace(self, crafted=self.crafted.filter(pl.col("key").is_in(pl.concat(tables).unique().implode())))

    def judging(self) -> "Rows":
        """What models judged, without what they were attacked by."""
        return replace(self, crafted=self.crafted.clear(), scored=self.scored.clear(), traced=self.traced.clear())

    @property
    def empty(self) -> bool:
        """Whether no table has rows."""
        return not any(getattr(self, name).height for name in COLUMNS)

    @property
    def attacked(self) -> bool:
        """Whether there are rows of attacked images."""
        tables = (getattr(self, name) for name in COLUMNS if name != "certified")
        return any(rows["crafted"].is_not_null().any() if "crafted" in rows.columns else rows.height for rows in tables)

    def column(self, name: str) -> list[pl.Series]:
        """The values of a cell's column in all tables that have it."""
        tables = ((getattr(self, table), COLUMNS[table].get(name, name)) for table in COLUMNS)
        return [rows[column].alias(name) for rows, column in tables if column in rows.columns]

    def _part(self, table: str, cell: Mapping[str, Any]) -> pl.DataFrame:
        rows: pl.DataFrame = getattr(self, table)
        for name, value in cell.items():
            column = COLUMNS[table].get(name, name)
            # What was crafted is no measure's.
            if (
                value is None
                or name == "radius"
                or column not in rows.columns
                or (table, name) == ("crafted", "measure")
            ):
                continue
            found = pl.col(column).is_in(_several(value), nulls_equal=True)
            if name in OF_ATTACKS and "crafted" in rows.columns:
                found |= pl.col("crafted").is_null()
            if column in ("past", "alarms"):
                found |= pl.col(column).is_null()
            if table == "scored" and name in ("measure", "data"):
                found |= pl.col("kind") == "calibration"
            rows = rows.filter(found)
        return rows


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def small(rows: pl.DataFrame) -> pl.DataFrame:
    """Half the memory: whole numbers in four bytes, and names, which repeat, too."""
    return rows.with_columns(pl.col(pl.String).cast(pl.Categorical), pl.col(pl.Int64).cast(pl.Int32))


def attacked(crafted: pl.DataFrame) -> pl.DataFrame:
    """The rows of images that the net had right, and that were therefore attacked."""
    return crafted.filter(~pl.col("initially_wrong"))


def fooled() -> pl.Expr:
    """Answered, and wrongly: a failed solve is neither right nor fooled."""
    return ~pl.col("correct") & (pl.col("status") == 0)
