"""Any folder of pictures as a data set."""

from pathlib import Path

import torch

from odefend.data.images import SPLITS, LabelledImages, check_split, shuffled
from odefend.data.pictures import SUFFIXES, decode_all
from odefend.errors import DataError

SHARES = {"test": 0.1, "validation": 0.1, "train": 0.8}


def folder(
    split: str, path: Path | str, size: int | tuple[int, int] | None = None, grey: bool = False
) -> LabelledImages:
    """Pictures below `path`: in train/CLASS, validation/CLASS and test/CLASS, or in CLASS, then split 80 : 10 : 10 at
    random, by name. A folder of pictures without classes has one class. Classes are numbered in the order of their names.

    size: what pictures are scaled to, (height, width) or one number for both; without it they must all have one size.
    Ids are the folder's name and the path within it, so that they stay when the folder moves elsewhere.
    """
    check_split(split)
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder.")
    given = any((path / name).is_dir() for name in SPLITS)
    place = path / split if given else path
    files = sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"{place}: expected pictures ({', '.join(SUFFIXES)}), found none.")
    # Over all splits, so that a class has one number in each of them.
    parents = [path / name for name in SPLITS if (path / name).is_dir()] or [path]
    classes = sorted({inner.name for parent in parents for inner in parent.iterdir() if inner.is_dir()})
    ids = tuple(f"{path.name}/{file.relative_to(path).as_posix()}" for file in files)
    if not given:
        kept = _share(ids, split)
        files, ids = [files[i] for i in kept], tuple(ids[i] for i in kept)
    labels = [classes.index(top) if (top := file.relative_to(place).parts[0]) in classes else 0 for file in files]
    wanted = (size, size) if isinstance(size, int) else size
    return LabelledImages(decode_all(files, wanted, grey=grey), torch.tensor(labels), ids)


def _share(ids: tuple[str, ...], split: str) -> list[int]:
    """Which of the pictures belong to the split."""
    order, start = shuffled(ids), 0
    for name, share in SHARES.items():
        stop = len(ids) if name == "train" else start + round(share * len(ids))
        if name == split:
            return sorted(order[start:stop])
        start = stop
    raise AssertionError(f"{split}: checked before")
