"""MNIST and Fashion-MNIST, from the four IDX files of their publishers."""

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import torch

from odefend.data.images import LabelledImages, check_split, cut
from odefend.data.sources import locate
from odefend.errors import DataError

HELD_OUT = 5_000
CLASSES = 10
UNSIGNED_BYTE = 8
LARGEST = 1 << 29
"""Bytes of an array that a file may ask for; MNIST's largest has 47 million."""


def mnist(split: str, folder: Path | None = None) -> LabelledImages:
    """MNIST: 70,000 grey pictures of 28x28 pixels, ten digits: train 55,000, validation 5,000, test 10,000.

    `folder` and what happens without it: `sources.locate`. The test part keeps its published order, in which the first n are no
    sample of it: trained nets of this package err about three times as often on the first 5,000 as on the rest, and on hardly
    any of the first 200. `LabelledImages.sample` draws some. Source: LeCun, Cortes & Burges, 1998 (doi 10.1109/5.726791).
    """
    return _split("mnist", split, folder)


def fashion_mnist(split: str, folder: Path | None = None) -> LabelledImages:
    """Fashion-MNIST: pictures of ten kinds of clothing in the format and sizes of MNIST (arXiv 1708.07747)."""
    return _split("fashion-mnist", split, folder)


def _split(name: str, split: str, folder: Path | None) -> LabelledImages:
    check_split(split)
    files, part = locate(name, folder), "test" if split == "test" else "train"
    prefix = "t10k" if part == "test" else "train"
    pixels = read_idx(files / f"{prefix}-images-idx3-ubyte.gz", 3)
    labels = read_idx(files / f"{prefix}-labels-idx1-ubyte.gz", 1)
    if len(pixels) != len(labels):
        raise DataError(f"{files}: expected as many labels as images, got {len(labels)} and {len(pixels)}.")
    if len(labels) and labels.max() >= CLASSES:
        raise DataError(f"{files}: expected labels of {CLASSES} classes, got {labels.max()}. Fetch {name} again.")
    everything = LabelledImages(
        torch.from_numpy(pixels)[:, None],
        torch.from_numpy(labels.astype(np.int64)),
        tuple(f"{name}/{part}/{i:05d}" for i in range(len(labels))),
    )
    return everything if part == "test" else cut(everything, split, HELD_OUT)


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The uint8 array of an IDX file with this many axes, compressed or (where `path` without ".gz" exists) not.

    Raises DataError, which names the file and what is wrong with it.
    """
    if not path.exists() and path.with_suffix("").exists():
        path = path.with_suffix("")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _idx(path, file, axes)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged ({error}). Remove it and fetch it again.") from error


def _idx(path: Path, file: BufferedIOBase, axes: int) -> np.ndarray:
    """The array in an open file, of which no more is unpacked than its head announces."""
    kind, head = file.read(4), file.read(4 * axes)
    if kind != bytes((0, 0, UNSIGNED_BYTE, axes)) or len(head) < 4 * axes:
        raise DataError(f"{path}: expected an IDX file of bytes with {axes} axes, got {kind.hex() or 'nothing'}.")
    shape = struct.unpack(f">{axes}I", head)
    size, announced = math.prod(shape), f"{'x'.join(map(str, shape))} bytes after its head"
    if size > LARGEST:
        raise DataError(f"{path}: expected at most {LARGEST:,} bytes, got a file that announces {announced}.")
    content = bytearray()
    while len(content) < size and (part := file.read(min(size - len(content), 1 << 20))):
        content += part
    if len(content) < size or file.read(1):
        raise DataError(
            f"{path}: expected {announced}, got {len(content) if len(content) < size else 'more'}; truncated or damaged. Remove it "
            "and fetch it again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)
