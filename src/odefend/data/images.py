"""Labelled pictures with stable names, and deterministic splits of them."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odefend.errors import InvalidInput, OdefendWarning, unknown
from odefend.tensors import Images

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Pictures (N, C, H, W), their labels, and an id for each that never changes.

    `pixels` is what is kept in memory: uint8 in 0..255, or floats in [0, 1]. `images` is what classifiers take.
    """

    pixels: Tensor
    labels: Tensor
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.pixels) == len(self.labels) == len(self.ids):
            raise InvalidInput(
                f"expected as many images as labels and ids, got {len(self.pixels)}, {len(self.labels)}, {len(self.ids)}."
            )
        if self.pixels.dtype != torch.uint8 and not self.pixels.is_floating_point():
            raise InvalidInput(f"pixels: expected uint8 in 0..255 or floats in [0, 1], got {self.pixels.dtype}.")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor | np.ndarray) -> "LabelledImages":
        """Some of them, by slice, indices or mask."""
        index = torch.arange(len(self))[rows]
        return LabelledImages(self.pixels[index], self.labels[index], tuple(self.ids[i] for i in index.tolist()))

    def sample(self, count: int, seed: int = 0) -> "LabelledImages":
        """So many of them drawn at random, all where there are fewer: by ids and seed alone, a smaller sample being the beginning
        of a larger one. The first n of a data set need be no sample of it."""
        return self[shuffled(self.ids, seed)[:count]]

    @property
    def images(self) -> Images:
        """The pictures as floats in [0, 1]; made anew at each access where `pixels` are uint8, so take few."""
        return as_floats(self.pixels)

    def to(self, device: torch.device) -> "LabelledImages":
        """The same on another device."""
        return LabelledImages(self.pixels.to(device), self.labels.to(device), self.ids)

    @property
    def digest(self) -> str:
        """16 hex digits that change with any id, label or pixel, or their order."""
        digest = hashlib.sha256("\n".join(self.ids).encode())
        digest.update(self.labels.cpu().numpy().tobytes())
        digest.update(self.pixels.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def as_floats(pixels: Tensor) -> Tensor:
    """Pixels as floats in [0, 1]: those of uint8 divided by 255, others as they are."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def tell_of_fewer(data: str, split: str, asked: int, found: int) -> None:
    """Warn where a split has fewer images than were asked for, and all are taken."""
    if found < asked:
        text = f"images: {asked:,} asked for, {found:,} taken: the {split} split of {data} has no more."
        warnings.warn(text, OdefendWarning, stacklevel=3)


def shuffled(ids: Sequence[str], seed: int = 0) -> list[int]:
    """An order of the images that depends on nothing but their ids and the seed."""
    return sorted(range(len(ids)), key=lambda i: hashlib.blake2b(f"{seed}/{ids[i]}".encode()).digest())


def cut(train: LabelledImages, split: str, held_out: int) -> LabelledImages:
    """Of a publisher's training part, "validation" is `held_out` random images, "train" the others in their order."""
    order = shuffled(train.ids)
    return train[order[:held_out]] if split == "validation" else train[sorted(order[held_out:])]


def check_split(split: str) -> None:
    """Raise UnknownName unless this is the name of a split."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
