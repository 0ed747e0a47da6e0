"""Sets of pristine and tampered pictures, to train and judge tampering detectors on."""

from collections.abc import Sequence
from pathlib import Path

import torch

from odefend.data.images import LabelledImages, check_split
from odefend.data.tamper import PUBLISHED, tamper
from odefend.data.tiny_imagenet import tiny_imagenet_part
from odefend.errors import InvalidInput

PER_CLASS = 10
TESTED = 400


def with_tampered(pristine: LabelledImages, tamperings: Sequence[str], seed: int = 0) -> LabelledImages:
    """Each picture, followed by itself under each of the tamperings. The label is 0 for pristine, else the tampering's
    number from 1; ids end in "/pristine" or the tampering's name.

    Tampered pictures stand next to their originals, so a split of the originals is one of the pairs.
    """
    if not tamperings or len(set(tamperings)) != len(tamperings):
        raise InvalidInput(f"tamperings: expected one or more different ones, got {list(tamperings)}.")
    kinds = ("pristine", *tamperings)
    changed = [tamper(pristine.pixels, pristine.ids, how, seed=seed) for how in tamperings]
    return LabelledImages(
        torch.stack([pristine.pixels, *changed], 1).flatten(0, 1),
        torch.arange(len(kinds)).repeat(len(pristine)),
        tuple(f"{name}/{kind}" for name in pristine.ids for kind in kinds),
    )


def forensic_pairs(
    split: str, tampering: str = "median-3", seed: int = 0, folder: Path | None = None
) -> LabelledImages:
    """Pristine (0) and tampered (1) pictures of Tiny-ImageNet-200 in turn, split as Caldelli et al. (ICIP 2022) did: the
    first 10 of each class of part train (2,000 + 2,000), the first 10 of each class of part val to validate with, and
    the first 400 of part test to test (400 + 400). First means the lowest numbers that are there: in the whole data set
    these are train 0-9 of each class and test_0 ... test_399."""
    return with_tampered(_pristine(split, folder), [tampering], seed)


def forensic_kinds(
    split: str, tamperings: Sequence[str] = PUBLISHED, seed: int = 0, folder: Path | None = None
) -> LabelledImages:
    """The same pictures under each of the tamperings; the label is the kind: 0 for pristine, else its number from 1."""
    return with_tampered(_pristine(split, folder), tamperings, seed)


def _pristine(split: str, folder: Path | None) -> LabelledImages:
    check_split(split)
    if split == "test":
        # The publisher's part test has no labels and is in the order of its numbers.
        return tiny_imagenet_part("test", folder)[:TESTED]
    part = tiny_imagenet_part("train" if split == "train" else "val", folder)
    first = torch.cat([torch.nonzero(part.labels == label)[:PER_CLASS, 0] for label in part.labels.unique()])
    return part[first]
