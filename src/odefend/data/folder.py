"""Any folder of pictures as a data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from odefend.data.images import SPLITS, LabelledImages, check_split, shuffled
from odefend.data.pictures import SUFFIXES, decode, decode_all
from odefend.errors import DataError, InvalidInput

SHARES = {"test": 0.1, "validation": 0.1, "train": 0.8}


def folder(
    split: str, path: Path | str, size: int | tuple[int, int] | None = None, grey: bool = False
) -> LabelledImages:
    """Pictures below `path`: in train/CLASS, validation/CLASS and test/CLASS, or in CLASS, then split 80 : 10 : 10 at
    random, by name. A folder of pictures without classes has one class. Classes are numbered in the order of their names.

    size: what pictures are scaled to, (height, width) or one number for both; without it they must all have one size.
    Ids are the folder's name and the path within it, so that they stay when the folder moves elsewhere.

    Raises DataError, which names the file or folder, where that is not what is there.
    """
    check_split(split)
    wanted = (size, size) if isinstance(size, int) else size
    if wanted and not all(isinstance(side, int) and 1 <= side <= 10_000 for side in wanted):
        raise InvalidInput(f"size: expected one or two numbers of pixels, 1 ... 10,000, got {size}.")
    path = Path(path).resolve()
    if not path.is_dir():
        raise DataError(f"{path}: no such folder.")
    parts = [path / name for name in SPLITS if (path / name).is_dir()]
    files = {part: _pictures(part) for part in parts or [path]}
    # Over all parts, so that a class has one number in each of them.
    labels = _labels(files)
    chosen = files.get(path / split, []) if parts else files[path]
    ids = [f"{path.name}/{file.relative_to(path).as_posix()}" for file in chosen]
    kept = list(range(len(ids))) if parts else _share(ids, split)
    if not kept:
        raise DataError(
            f"{path / split if parts else path}: expected pictures ({', '.join(SUFFIXES)}) for the split {split}, found none."
        )
    return LabelledImages(
        decode_all([chosen[i] for i in kept], wanted, grey=grey),
        torch.tensor([labels[chosen[i]] for i in kept]),
        tuple(ids[i] for i in kept),
    )


def pictures_below(paths: Sequence[Path], *, grey: bool = False) -> list[LabelledImages]:
    """Single pictures and those below folders, whatever their sizes: in groups of one size, as they are named, without labels
    (-1). Raises DataError, which names the file or folder, where there is none."""
    files = [file for path in paths for file in (_pictures(path) if path.is_dir() else [path])]
    if not files:
        raise DataError(f"{paths[0] if paths else 'no path'}: expected pictures ({', '.join(SUFFIXES)}), found none.")
    groups = dict[tuple[int, ...], list[tuple[str, np.ndarray]]]()
    for file in files:
        pixels = decode(file, grey=grey)
        groups.setdefault(pixels.shape, []).append((str(file), pixels))
    return [
        LabelledImages(
            torch.from_numpy(np.stack([pixels for _, pixels in group])),
            torch.full((len(group),), -1),
            tuple(name for name, _ in group),
        )
        for group in groups.values()
    ]


def _pictures(place: Path) -> list[Path]:
    return sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())


def _labels(files: dict[Path, list[Path]]) -> dict[Path, int]:
    """The class of each picture: the folder that it lies in below its part."""
    tops = {file: file.relative_to(part).parts[:-1][:1] for part, inside in files.items() for file in inside}
    classes = sorted(set(tops.values()))
    if len(classes) > 1 and classes[0] == ():
        stray = next(file for file, top in tops.items() if not top)
        raise DataError(f"{stray}: lies beside folders of classes, in none of them. Move it into one.")
    return {file: classes.index(top) for file, top in tops.items()}


def _share(ids: list[str], split: str) -> list[int]:
    """Which of the pictures belong to the split."""
    order, start, part = shuffled(ids), 0, range(0)
    for name, share in SHARES.items():
        part = range(start, len(ids) if name == "train" else start + round(share * len(ids)))
        if name == split:
            break
        start = part.stop
    return sorted(order[i] for i in part)
