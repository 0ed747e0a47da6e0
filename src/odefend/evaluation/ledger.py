"""The ledger: one row per image and trial, in Parquet; every table and figure is a pure function of its rows.

Three tables in one folder, each a folder of shards that are written atomically under a key saying how they were made:
`crafted` (an image attacked), `judged` (an image seen by a net under some condition) and `scored` (an image scored by
a detector). Adversarial images lie beside them as safetensors.

A shard does not say what it is for: the same images serve several evaluations. That is what `labels` tell, and reading a
table joins them: a shard with two labels gives its rows twice.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from odefend.errors import OutputError
from odefend.files import make_folder, write_atomically

SCHEMA_VERSION = 3

_SHARED = {
    "key": pl.String,  # of the shard: a digest of everything that decides its rows
    "image": pl.String,
    "label": pl.Int64,
    "data_digest": pl.String,
    "net": pl.String,
    "net_digest": pl.String,
    "training_seed": pl.Int64,
    "gradient": pl.String,  # solver settings of the net that judges; null without a solver
    "end": pl.String,
    "method": pl.String,
    "coupling": pl.String,
    "max_steps": pl.Int64,
    "precision": pl.String,
    "rtol": pl.Float64,
    "atol": pl.Float64,
    "code_version": pl.String,
    "schema_version": pl.Int64,
}

TABLES: dict[str, dict[str, Any]] = {
    "crafted": _SHARED
    | {
        "attack": pl.String,
        "settings": pl.String,  # canonical JSON
        "norm": pl.String,
        "epsilon": pl.Float64,  # null for a minimum-norm attack
        "steps": pl.Int64,
        "target": pl.Int64,  # null where any other class counts
        "search_precision": pl.String,  # of the gradients: full (the net's own) or bfloat16
        "source": pl.String,  # net whose gradients were used
        "source_rtol": pl.Float64,
        "source_atol": pl.Float64,
        "source_gradient": pl.String,
        "source_draws": pl.Int64,  # random tolerances whose answers the attacked net averages; null where there are none
        "guard": pl.String,  # canonical JSON of the detector that the attack had to slip past; null without one
        "seed": pl.Int64,
        "batch": pl.Int64,
        "position": pl.Int64,  # in the shard's stored images
        "success": pl.Boolean,
        "initially_wrong": pl.Boolean,
        "distance": pl.Float64,  # in `norm`; inf where a minimum-norm attack found nothing
        "l2": pl.Float64,
        "linf": pl.Float64,
        "mse": pl.Float64,
        "gradient_calls": pl.Int64,
        "forward_calls": pl.Int64,
        "zero_gradients": pl.Int64,
        "status": pl.Int64,
        "history": pl.List(pl.Float64),  # smallest adversarial distance after each outer step; inf before the first
    },
    "judged": _SHARED
    | {
        "kind": pl.String,  # clean or adversarial
        "split": pl.String,
        "crafted": pl.String,  # key of the shard the image was crafted in; null for a clean image
        "initially_wrong": pl.Boolean,  # by the attacked net; null for a clean image
        "attack_success": pl.Boolean,
        "defense": pl.String,  # tolerance, random tolerance or noise
        "sigma": pl.Float64,
        "scale": pl.Float64,  # s in x + s * (x_adv - x)
        "draw": pl.Int64,
        "prediction": pl.Int64,
        "correct": pl.Boolean,
        "margin": pl.Float64,  # largest minus second largest logit
        "true_margin": pl.Float64,  # logit of the true class minus the largest other
        "nfe": pl.Int64,
        "accepted": pl.Int64,
        "rejected": pl.Int64,
        "status": pl.Int64,
    },
    "scored": _SHARED
    | {
        "kind": pl.String,  # clean, adversarial, or calibration: clean images on which thresholds are set
        "crafted": pl.String,
        "scale": pl.Float64,
        "detector": pl.String,
        "cost": pl.Int64,  # passes through the net
        "score": pl.Float64,
    },
}

LABELS: dict[str, Any] = {
    "table": pl.String,
    "key": pl.String,
    "evaluation": pl.String,  # its name; "" outside of one
    "experiment": pl.String,  # what the rows are for
    "trial": pl.String,  # the attack or detector by the evaluation's own name; null where there is one only
}
"""What shards are for."""


def digest(recipe: dict[str, Any]) -> str:
    """A key that says how something was made: 20 hex digits of the canonical JSON's SHA-256."""
    return hashlib.sha256(canonical(recipe).encode()).hexdigest()[:20]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


class Ledger:
    """The rows of an evaluation in one folder; see the module's text. Writing makes the folders it needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, table: str, key: str) -> bool:
        """Whether a shard is there."""
        return self._shard(table, key).exists()

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
        write_atomically(self._shard(table, key), lambda part: frame.write_parquet(part))

    def label(self, labels: Iterable[tuple[str, str, str, str, str | None]]) -> None:
        """Say what shards are for: a row of LABELS for each. What is said already is not said twice."""
        rows = sorted(set(labels), key=str)
        if not rows:
            return
        path = self._shard("labels", digest({"labels": rows}))
        if not path.exists():
            make_folder(path.parent)
            frame = pl.DataFrame(rows, schema=LABELS, orient="row")
            write_atomically(path, lambda part: frame.write_parquet(part))

    def labels(self, evaluation: str | None = None) -> pl.DataFrame:
        """What shards are for, in one evaluation or in all."""
        paths = sorted((self.folder / "labels").glob("*.parquet"))
        found = pl.concat([pl.DataFrame(schema=LABELS), *(_read(path, LABELS) for path in paths)])
        if evaluation is not None:
            return found.filter(pl.col("evaluation") == evaluation).unique(maintain_order=True)
        return found.drop("evaluation").unique(maintain_order=True)

    def read(self, table: str, evaluation: str | None = None) -> pl.DataFrame:
        """All rows of a table, in the order of their keys, with what they are for (`experiment` and `trial`; null for rows
        that nobody labelled); of one evaluation if given. Raises OutputError for a damaged shard, naming it."""
        keys = sorted(path.stem for path in (self.folder / table).glob("*.parquet"))
        rows = pl.concat([pl.DataFrame(schema=TABLES[table]), *(self.read_shard(table, key) for key in keys)])
        labels = self.labels(evaluation).filter(pl.col("table") == table).select("key", "experiment", "trial")
        how = "left" if evaluation is None else "inner"
        return rows.join(labels, on="key", how=how, maintain_order="left_right")

    def read_shard(self, table: str, key: str) -> pl.DataFrame:
        """The rows of one shard, without labels."""
        return _read(self._shard(table, key), TABLES[table])

    def write_images(self, key: str, images: Tensor) -> None:
        """Store a shard's adversarial images."""
        images = images.detach().cpu().contiguous()
        make_folder(self.folder / "images")
        write_atomically(self._images(key), lambda part: save_file({"images": images}, part))

    def read_images(self, key: str) -> Tensor:
        """A shard's adversarial images."""
        try:
            return load_file(self._images(key))["images"]
        except (SafetensorError, OSError, KeyError) as error:
            raise OutputError(
                f"{self._images(key)}: missing or damaged. Remove the ledger's folder and run again."
            ) from error

    def _shard(self, table: str, key: str) -> Path:
        return self.folder / table / f"{key}.parquet"

    def _images(self, key: str) -> Path:
        return self.folder / "images" / f"{key}.safetensors"


def _read(path: Path, schema: dict[str, Any]) -> pl.DataFrame:
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
