"""Labelled pictures with stable names, and deterministic splits of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odefend.errors import InvalidInput
from odefend.tensors import Images, Labels


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Pictures (N, C, H, W) in [0, 1], their labels, and an id for each that never changes."""

    images: Images
    labels: Labels
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.ids):
            raise InvalidInput(
                f"expected as many images as labels and ids, got {len(self.images)}, {len(self.labels)}, {len(self.ids)}."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor | np.ndarray) -> "LabelledImages":
        """Some of them, by slice, indices or mask."""
        index = torch.arange(len(self))[rows]
        return LabelledImages(self.images[index], self.labels[index], tuple(self.ids[i] for i in index.tolist()))

    def to(self, device: torch.device) -> "LabelledImages":
        """The same on another device."""
        return LabelledImages(self.images.to(device), self.labels.to(device), self.ids)

    @property
    def digest(self) -> str:
        """16 hex digits that change with any id, label or pixel, or their order."""
        digest = hashlib.sha256("\n".join(self.ids).encode())
        digest.update(self.labels.cpu().numpy().tobytes())
        digest.update(self.images.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def shuffled(ids: Sequence[str], seed: int = 0) -> list[int]:
    """An order of the images that depends on nothing but their ids and the seed."""
    return sorted(range(len(ids)), key=lambda i: hashlib.blake2b(f"{seed}/{ids[i]}".encode()).digest())
