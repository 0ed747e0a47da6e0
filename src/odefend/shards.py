"""The files of a ledger: where each lies, how it is packed, and what is in it once its checksum is seen to be right."""

import io
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from odefend.errors import OutputError
from odefend.seal import BLANK, is_intact, sealed

IMAGES = "images"
"""The folder of adversarial images, beside those of the tables."""

KEY = re.compile(r"[0-9a-f]{20}")
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What polars raises for files that it cannot read; its panic is no Exception."""


def place(folder: Path, table: str, key: str) -> Path:
    """The file of a shard, or of the images under its key.

    Raises OutputError for a key that is not 20 hex digits: it is the name of a file, and comes from others' files as well.
    """
    if not KEY.fullmatch(key):
        raise OutputError(f"{folder / table}: expected keys of 20 hex digits, got {key!r}. Name another ledger.")
    return folder / table / f"{key}.{'safetensors' if table == IMAGES else 'parquet'}"


def packed_rows(rows: pl.DataFrame) -> bytes:
    """Rows as a Parquet file that holds its own checksum."""
    packed = io.BytesIO()
    rows.write_parquet(packed, metadata={"odefend": BLANK})
    return sealed(packed.getvalue())


def packed_images(images: Tensor) -> bytes:
    """Images as a file of safetensors that holds its own checksum."""
    images = images.detach().cpu().contiguous()
    return sealed(safetensors.torch.save({"images": images}, metadata={"odefend": BLANK}))


def read_rows(path: Path, schema: dict[str, Any], added: Collection[str] = ()) -> pl.DataFrame:
    """A file's rows; those of the columns that were `added` to the schema later are null where the file lacks them.

    Raises OutputError, which names the file, where it is damaged or of another version.
    """
    check_rows(path)
    try:
        frame = pl.read_parquet(path)
    except UNREADABLE as error:
        raise _damaged(path, error) from error
    missing = [pl.lit(None, schema[name]).alias(name) for name in added if name not in frame.columns]
    if missing:
        frame = frame.with_columns(missing).select(*(name for name in schema if name in frame.columns or name in added))
    if frame.schema != pl.Schema(schema):
        raise OutputError(f"{path}: written by another version of odefend (its columns differ). Choose another folder.")
    return frame


def read_images(path: Path) -> Tensor:
    """The images in a file. Raises OutputError where it is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            intact = is_intact(path) if file.metadata() else True
            images = file.get_tensor("images")
    except (SafetensorError, OSError) as error:
        raise OutputError(f"{path}: missing or damaged. Remove the ledger's folder and run again.") from error
    if not intact or images.ndim != 4 or not images.is_floating_point():
        raise OutputError(f"{path}: damaged: its checksum is another. Remove the ledger's folder and run again.")
    return images


def check_rows(path: Path) -> None:
    """Raise OutputError for a file of rows that is not as it was written. Files from before there were checksums, which have no
    metadata of odefend, pass."""
    try:
        _check_rows(path, path.stat().st_mtime_ns)
    except UNREADABLE as error:
        raise _damaged(path, error) from error


@lru_cache(maxsize=1 << 16)
def _check_rows(path: Path, changed: int) -> None:  # noqa: ARG001
    intact = is_intact(path)
    if intact is None:
        intact = not set(pl.read_parquet_metadata(path)) - {"ARROW:schema"}
    if not intact:
        raise OutputError(f"{path}: damaged: its checksum is another. Remove it and run again.")


def keys_in(path: Path) -> frozenset[str]:
    """The keys in a file of packed shards."""
    check_rows(path)
    try:
        return _keys(path, path.stat().st_mtime_ns)
    except UNREADABLE as error:
        raise _damaged(path, error) from error


@lru_cache(maxsize=64)
def _keys(path: Path, changed: int) -> frozenset[str]:  # noqa: ARG001
    """Read again when the file was `changed`."""
    return frozenset(pl.scan_parquet(path).select(pl.col("key").unique()).collect()["key"].to_list())


def _damaged(path: Path, error: BaseException) -> OutputError:
    return OutputError(f"{path}: damaged: {str(error).splitlines()[0]}. Remove it and run again.")
