"""The ledger: one row per image and trial, in Parquet; every table and figure is a pure function of its rows.

Five tables in one folder, each a folder of shards that are written atomically under a key saying how they were made:
`crafted` (an image attacked), `judged` (an image judged by a model), `scored` (an image scored by a
detector), `certified` (an image with the radius in which its answer is proven) and `traced` (its state's way through the
ODE). Adversarial images lie beside them as safetensors.

A shard does not say what it is for: the same images serve several experiments. That is what `labels` tell, and reading a
table joins them: a shard with two labels gives its rows twice.
"""

import hashlib
import io
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from odefend.errors import InvalidInput, OutputError
from odefend.files import make_folder, write_bytes
from odefend.ledger.schema import LABELS, SCHEMA_VERSION, TABLES

Bundle = dict[str, bytes]
"""Files of a ledger on their way to another, by their paths in it."""


@dataclass(frozen=True)
class Label:
    """What the rows of a shard are for in an experiment, by the experiment's own names; see LABELS for the meaning of each."""

    measure: str
    model: str
    attack: str | None = None
    data: str = "test"
    role: str | None = None
    past: str | None = None
    alarms: float | None = None


READERS = re.compile(r"\b(read|scan)_\w+", re.IGNORECASE)
"""Functions of polars' SQL that read files, wherever they stand, quoted or not; no column is called so."""

PART = "part-"
"""How the names of files of packed shards begin."""


def digest(recipe: dict[str, Any]) -> str:
    """A key that says how something was made: 20 hex digits of the canonical JSON's SHA-256."""
    return hashlib.sha256(canonical(recipe).encode()).hexdigest()[:20]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


class Ledger:
    """The rows of experiments in one folder; see the module's text. Writing makes the folders it needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, table: str, key: str) -> bool:
        """Whether a shard is there."""
        return self._shard(table, key).exists() or key in self._packed(table)

    def pack(self) -> int:
        """Put the shards of each table into one file: many small files are slow to read. Returns how many were packed.

        Stopped at any moment, no row is lost or doubled: a shard that is packed already is not read.
        """
        packed = 0
        for table in TABLES:
            known = self._packed(table)
            shards = [path for path in self._files(table) if path.stem not in known]
            if not shards:
                continue
            rows = pl.concat(_read(path, TABLES[table]) for path in shards)
            name = f"{PART}{digest({'keys': [path.stem for path in shards]})}.parquet"
            write_bytes(self.folder / table / name, parquet(rows))
            for path in shards:
                path.unlink()
            packed += len(shards)
        return packed

    def _files(self, table: str) -> list[Path]:
        """The shards that are not packed."""
        return sorted(path for path in (self.folder / table).glob("*.parquet") if not path.stem.startswith(PART))

    def _packed(self, table: str) -> dict[str, Path]:
        """The files that packed shards are in, by key."""
        return {
            key: path
            for path in sorted((self.folder / table).glob(f"{PART}*.parquet"))
            for key in _keys(path, path.stat().st_mtime_ns)
        }

    def write(self, table: str, key: str, rows: dict[str, Any]) -> None:
        """Write a shard: columns of equal length, or single values for every row. Missing columns are null."""
        schema = TABLES[table]
        foreign = set(rows) - set(schema)
        if foreign:
            raise ValueError(f"no such columns in {table}: {sorted(foreign)}")
        size = max(len(value) for value in rows.values() if isinstance(value, list | tuple))
        rows = {"key": key, "schema_version": SCHEMA_VERSION, **rows}
        columns = {
            name: list(value) if isinstance(value := rows.get(name), list | tuple) else [value] * size
            for name in schema
        }
        frame = pl.DataFrame(columns, schema=schema)
        make_folder(self.folder / table)
        write_bytes(self._shard(table, key), parquet(frame))

    def label(self, experiment: str, labels: Iterable[tuple[str, str, Label]]) -> None:
        """Say what shards are for in an experiment: (table, key, label) for each. What is said already is not said twice."""
        rows = sorted({(table, key, experiment, *astuple(label)) for table, key, label in labels}, key=str)
        if not rows:
            return
        path = self._shard("labels", digest({"labels": rows}))
        if not path.exists():
            make_folder(path.parent)
            frame = pl.DataFrame(rows, schema=LABELS, orient="row")
            write_bytes(path, parquet(frame))

    def labels(self, experiment: str | None = None) -> pl.DataFrame:
        """What shards are for, in one experiment or in all."""
        paths = sorted((self.folder / "labels").glob("*.parquet"))
        found = pl.concat([pl.DataFrame(schema=LABELS), *(_read(path, LABELS) for path in paths)])
        if experiment is not None:
            found = found.filter(pl.col("experiment") == experiment)
        return found.unique(maintain_order=True)

    def read(self, table: str, experiment: str | None = None, without: Collection[str] = ()) -> pl.DataFrame:
        """All rows of a table, in the order of their keys, with what they are for (see `Label`; null for rows that nobody
        labelled); of one experiment if given, and `without` some columns. Raises OutputError for a damaged shard, naming it."""
        return self._collected(table, self._scan(table, experiment).drop(without))

    def rows(self, table: str) -> pl.DataFrame:
        """All rows of a table as they were written, each once, in the order of their keys."""
        return self._collected(table, self._shards(table))

    def _shards(self, table: str) -> pl.LazyFrame:
        """The rows of all files of a table, not read yet."""
        paths = self._paths(table)
        if not paths:
            return pl.LazyFrame(schema=TABLES[table])
        rows = pl.scan_parquet(paths, schema=TABLES[table], missing_columns="insert")
        try:
            columns = {path: frozenset(pl.read_parquet_schema(path)) for path in paths}
        except (pl.exceptions.PolarsError, OSError):
            columns = {}
        if not columns or any(set(TABLES[table]) - some for some in columns.values()):
            self._name_damage(table)
        return rows

    def _scan(self, table: str, experiment: str | None = None) -> pl.LazyFrame:
        """The rows of a table with what they are for, not read yet."""
        labels = self.labels(experiment).filter(pl.col("table") == table).drop("table").unique(maintain_order=True)
        how = "left" if experiment is None else "inner"
        return self._shards(table).join(labels.lazy(), on="key", how=how, maintain_order="left_right")

    def _collected(self, table: str, rows: pl.LazyFrame) -> pl.DataFrame:
        """Rows in the order of their keys. Streamed: read at once, a million of them would be there three times."""
        try:
            found = rows.collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError):
            self._name_damage(table)
            raise
        return found if found["key"].is_sorted() else found.sort("key", maintain_order=True)

    def _name_damage(self, table: str) -> None:
        """Raise OutputError for the first file of a table that cannot be read or has other columns."""
        for path in self._paths(table):
            _read(path, TABLES[table])

    def _paths(self, table: str) -> list[Path]:
        """The files that hold a table's rows, each row once."""
        packed = self._packed(table)
        return [*sorted(set(packed.values())), *(path for path in self._files(table) if path.stem not in packed)]

    def query(self, sql: str) -> pl.DataFrame:
        """The answer to a query in SQL over the tables `crafted`, `judged`, `scored`, `certified`, `traced` and `labels`; the
        rows of the first five come with their labels, once for each label of their shard.

        No other file can be read by it: a query may come from somebody who may see these rows alone. Raises InvalidInput where
        it asks for one, or where polars cannot make sense of it.
        """
        if reader := READERS.search(sql):
            raise InvalidInput(
                f"query: expected the ledger's tables alone, {', '.join((*TABLES, 'labels'))}, got {reader[0]}, which reads other "
                "files. Read those with polars, from Python."
            )
        known = {table: self._scan(table) for table in TABLES} | {"labels": self.labels().lazy()}
        try:
            return pl.SQLContext(known).execute(sql).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            for table in TABLES:
                self._name_damage(table)
            raise InvalidInput(
                f"query: {str(error).splitlines()[0]}. The tables are {', '.join((*TABLES, 'labels'))}; "
                "`odefend ledger columns` lists what they hold."
            ) from error

    def merge(self, other: "Ledger") -> int:
        """Take over the shards, labels and images of another ledger that are not here; returns how many shards came.

        Shards of one key hold the same rows, so nothing can contradict (rows of other code have other keys; a report refuses a
        ledger of two codes); damaged ones raise OutputError and nothing of them
        is taken.
        """
        came = 0
        for table in TABLES:
            rows = other.rows(table)  # raises if a shard is damaged
            for (key,), shard in rows.group_by("key", maintain_order=True):
                if not self.has(table, str(key)):
                    make_folder(self.folder / table)
                    write_bytes(self._shard(table, str(key)), parquet(shard))
                    came += 1
        for path in sorted((other.folder / "images").glob("*.safetensors")):
            if not self._images(path.stem).exists():
                self._take(path)
        for path in sorted((other.folder / "labels").glob("*.parquet")):
            self._take(path)
        return came

    def _take(self, path: Path) -> None:
        """Copy a file of another ledger to its place in this one."""
        make_folder(self.folder / path.parent.name)
        write_bytes(self.folder / path.parent.name / path.name, path.read_bytes())

    def read_shard(self, table: str, key: str) -> pl.DataFrame:
        """The rows of one shard, without labels."""
        path = self._shard(table, key)
        if path.exists() or key not in (packed := self._packed(table)):
            return _read(path, TABLES[table])
        return _read(packed[key], TABLES[table]).filter(pl.col("key") == key)

    def write_images(self, key: str, images: Tensor) -> None:
        """Store a shard's adversarial images."""
        images = images.detach().cpu().contiguous()
        make_folder(self.folder / "images")
        write_bytes(self._images(key), safetensors.torch.save({"images": images}))

    def read_images(self, key: str) -> Tensor:
        """A shard's adversarial images."""
        try:
            return safetensors.torch.load_file(self._images(key))["images"]
        except (SafetensorError, OSError, KeyError) as error:
            raise OutputError(
                f"{self._images(key)}: missing or damaged. Remove the ledger's folder and run again."
            ) from error

    def bundle(self, table: str, keys: Iterable[str]) -> Bundle:
        """Shards of a table, with their images where they have some, as bytes to be sent elsewhere."""
        found = dict[str, bytes]()
        for key in keys:
            # Images first, as when they are made: rows say that a shard is whole.
            if table == "crafted" and self._images(key).exists():
                found[f"images/{key}.safetensors"] = self._images(key).read_bytes()
            found[f"{table}/{key}.parquet"] = parquet(self.read_shard(table, key))
        return found

    def unpack(self, bundle: Bundle) -> None:
        """Write what a bundle of another ledger holds."""
        for name, content in bundle.items():
            path = self.folder / name
            make_folder(path.parent)
            write_bytes(path, content)

    def _shard(self, table: str, key: str) -> Path:
        return self.folder / table / f"{key}.parquet"

    def _images(self, key: str) -> Path:
        return self.folder / "images" / f"{key}.safetensors"


def parquet(rows: pl.DataFrame) -> bytes:
    """Rows as a Parquet file."""
    packed = io.BytesIO()
    rows.write_parquet(packed)
    return packed.getvalue()


@lru_cache(maxsize=64)
def _keys(path: Path, changed: int) -> frozenset[str]:  # noqa: ARG001
    """The keys in a file of packed shards, read again when it was `changed`."""
    try:
        return frozenset(pl.scan_parquet(path).select(pl.col("key").unique()).collect()["key"].to_list())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise OutputError(f"{path}: damaged: {str(error).splitlines()[0]}. Remove it and run again.") from error


def _read(path: Path, schema: dict[str, Any]) -> pl.DataFrame:
    """A file's rows."""
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise OutputError(f"{path}: damaged: {str(error).splitlines()[0]}. Remove it and run again.") from error
    if frame.schema != pl.Schema(schema):
        raise OutputError(f"{path}: written by another version of odefend (its columns differ). Choose another folder.")
    return frame


def listed(values: Tensor) -> list[Any]:
    """A tensor as a column."""
    return values.detach().to("cpu", torch.float64 if values.is_floating_point() else values.dtype).tolist()
