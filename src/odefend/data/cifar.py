"""CIFAR-10, from its publisher's pickled batches, which are read without executing anything in them."""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odefend.data.images import LabelledImages, check_split, cut
from odefend.data.sources import locate
from odefend.errors import DataError

HELD_OUT = 5_000
BATCH = 10_000
PICTURE = 3 * 32 * 32
LARGEST = 40_000_000
MEMO = 100_000
OPCODES = frozenset(
    (
        *("PROTO", "STOP", "GLOBAL", "REDUCE", "BUILD", "NONE", "NEWFALSE", "BININT", "BININT1", "BININT2"),
        *("SHORT_BINSTRING", "BINSTRING", "EMPTY_DICT", "SETITEMS", "EMPTY_LIST", "APPENDS", "MARK"),
        *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    )
)
"""The instructions of pickle that the published batches are made of."""


def cifar10(split: str, folder: Path | None = None) -> LabelledImages:
    """CIFAR-10: 60,000 colour pictures of 32x32 pixels in ten classes: train 45,000, validation 5,000, test 10,000.

    `folder` and what happens without it: `sources.locate`. Source: Krizhevsky, Learning Multiple Layers of Features from
    Tiny Images, 2009.
    """
    check_split(split)
    files, part = locate("cifar10", folder), "test" if split == "test" else "train"
    names = ["test_batch"] if part == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    pixels, labels = zip(*(read_batch(files / name) for name in names), strict=True)
    joined = np.concatenate(labels)
    everything = LabelledImages(
        torch.from_numpy(np.concatenate(pixels)),
        torch.from_numpy(joined),
        tuple(f"cifar10/{part}/{i:05d}" for i in range(len(joined))),
    )
    return everything if part == "test" else cut(everything, split, HELD_OUT)


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(pixels (10000, 3, 32, 32) uint8, labels (10000,) int64) of one pickled batch.

    Raises DataError, which names the file, where it is not such a batch or holds anything that would be executed.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise DataError(f"{path}: expected a batch of CIFAR-10, about 31 MB, got {size / 1e6:.0f} MB.")
        packed = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    try:
        _check_opcodes(packed)
        content = _Reader(io.BytesIO(packed), encoding="bytes").load()
        pixels, labels = content[b"data"].array(), content[b"labels"]
    # A damaged pickle raises whatever its first wrong byte happens to mean.
    except Exception as error:
        raise DataError(f"{path}: not a batch of CIFAR-10, or damaged ({error}). Fetch it again.") from error
    if pixels is None or not _are_labels(labels):
        raise DataError(f"{path}: expected {BATCH} pictures of {PICTURE} bytes, each with a label in 0..9, got others.")
    return pixels.reshape(BATCH, 3, 32, 32), np.array(labels, dtype=np.int64)


def _check_opcodes(packed: bytes) -> None:
    """Raise UnpicklingError for an instruction that no batch of CIFAR-10 has, before any is carried out."""
    for opcode, argument, _ in pickletools.genops(packed):
        if opcode.name not in OPCODES:
            raise pickle.UnpicklingError(f"it has an instruction {opcode.name}, which no batch of CIFAR-10 needs")
        # The memo is an array as long as the largest number in it.
        if opcode.name == "LONG_BINPUT" and isinstance(argument, int) and argument > MEMO:
            raise pickle.UnpicklingError(f"it numbers an object {argument}, which no batch of CIFAR-10 needs")


def _are_labels(labels: Any) -> bool:
    return isinstance(labels, list) and len(labels) == BATCH and all(type(i) is int and 0 <= i < 10 for i in labels)


class _Type:
    """Stands in for numpy's dtype: it remembers which one was asked for and does nothing."""

    __slots__ = ("name",)

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment, which single bytes have none of."""


class _Array:
    """Stands in for numpy's ndarray: it keeps what the pickle says of shape, type and bytes."""

    __slots__ = ("state",)

    def __init__(self, *_: Any) -> None:
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray | None:
        """The array (BATCH, PICTURE), where it is one of bytes as CIFAR-10 has it."""
        _, shape, kind, by_columns, content = self.state
        known = isinstance(kind, _Type) and kind.name in (b"u1", "u1") and isinstance(content, bytes)
        if not known or by_columns or shape != (BATCH, PICTURE) or len(content) != BATCH * PICTURE:
            return None
        return np.frombuffer(content, np.uint8).reshape(shape)


STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
}


class _Reader(pickle.Unpickler):
    """Reads numbers, bytes, lists, dicts, and arrays through the stand-ins above; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR-10 needs")
        return STAND_INS[module, name]
