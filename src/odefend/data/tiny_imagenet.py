"""Tiny-ImageNet-200: 64x64 colour pictures of 200 classes, in its original folders of JPEG files."""

import re
from pathlib import Path

import torch

from odefend.data.images import LabelledImages, check_split, cut
from odefend.data.pictures import decode_once
from odefend.data.sources import locate
from odefend.errors import DataError, unknown
from odefend.files import read_text

NAME = "tiny-imagenet-200"
PARTS = ("train", "val", "test")
UNKNOWN = -1
"""The label of pictures that the publisher gave none."""


def tiny_imagenet(split: str, folder: Path | None = None) -> LabelledImages:
    """Tiny-ImageNet-200, as a whole or a subset of its files: "train" and "validation" are 95 and 5 % of its part train,
    "test" is its part val, whose labels are known.

    `folder` and what happens without it: `sources.locate`. Source: Stanford CS231n, 2015.
    """
    check_split(split)
    everything = tiny_imagenet_part("val" if split == "test" else "train", folder)
    return everything if split == "test" else cut(everything, split, len(everything) // 20)


def tiny_imagenet_part(part: str, folder: Path | None = None) -> LabelledImages:
    """One of the publisher's parts, "train", "val" or "test" (which has no labels: -1), ordered by class and number.

    Its pictures are JPEG files of quality 75 (4:2:0); about 1.8 % are grey. Decoded once, then taken from the cache.
    """
    if part not in PARTS:
        raise unknown("part", part, PARTS)
    files = locate(NAME, folder)
    classes = {name: label for label, name in enumerate(_lines(files / "wnids.txt"))}
    if part == "train":
        found = [(path, classes.get(path.parent.parent.name)) for path in (files / part).glob("*/images/*.JPEG")]
    elif part == "val":
        labels = dict(line.split("\t")[:2] for line in _lines(files / "val" / "val_annotations.txt"))
        found = [(path, classes.get(labels.get(path.name, ""))) for path in (files / part / "images").glob("*.JPEG")]
    else:
        found = [(path, UNKNOWN) for path in (files / part / "images").glob("*.JPEG")]
    stray = next((path for path, label in found if label is None), None)
    if stray:
        raise DataError(f"{stray}: has no label in wnids.txt or val_annotations.txt; it is not of {NAME}. Remove it.")
    if not found:
        raise DataError(f"{files / part}: expected JPEG files, found none. Fetch {NAME} again.")
    rows = sorted((label if label is not None else UNKNOWN, _number(path), path.stem, path) for path, label in found)
    pixels = decode_once(f"{NAME}-{part}", [row[3] for row in rows])
    ids = tuple(f"{NAME}/{part}/{row[2]}" for row in rows)
    return LabelledImages(pixels, torch.tensor([row[0] for row in rows]), ids)


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Fetch {NAME} again.") from error


def _number(path: Path) -> int:
    """The 42 of val_42.JPEG."""
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else 0
