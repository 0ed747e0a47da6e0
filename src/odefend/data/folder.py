"""Any folder of pictures as a data set."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from odefend.data.images import SPLITS, LabelledImages, check_split, shuffled
from odefend.data.pictures import MOST_PIXELS, SUFFIXES, decode, decode_all
from odefend.errors import DataError, InvalidInput, OdefendWarning

ALL = "all"
"""The split of a folder that has all of its pictures."""

SHARES = {"test": 0.1, "validation": 0.1, "train": 0.8}


def folder(
    split: str, path: Path | str, size: int | tuple[int, int] | None = None, grey: bool = False
) -> LabelledImages:
    """Pictures below `path`: in train/CLASS, validation/CLASS and test/CLASS, or in CLASS, then split 80 : 10 : 10 at
    random, by name, which a warning tells. The split "all" has all of them. A folder of pictures without classes has one
    class. Classes are numbered in the order of their names.

    size: what pictures are scaled to, (height, width) or one number for both; without it they must all have one size.
    Ids are the folder's name and the path within it, so that they stay when the folder moves elsewhere.

    Raises DataError, which names the file or folder, where that is not what is there.
    """
    if split != ALL:
        check_split(split)
    wanted = (size, size) if isinstance(size, int) else size
    if wanted is not None and not all(1 <= side <= 10_000 for side in wanted):
        raise InvalidInput(f"size: expected one or two numbers of pixels, 1 ... 10,000, got {size}.")
    path = Path(path).resolve()
    if not path.is_dir():
        raise DataError(f"{path}: no such folder.")
    parts = [path / name for name in SPLITS if (path / name).is_dir()]
    files = {part: _pictures(part) for part in parts or [path]}
    # Over all parts, so that a class has one number in each of them.
    labels = _labels(files)
    chosen = (
        [file for part in files for file in files[part]] if split == ALL or not parts else files.get(path / split, [])
    )
    ids = [readable(f"{path.name}/{file.relative_to(path).as_posix()}") for file in chosen]
    kept = list(range(len(ids))) if parts or split == ALL else _share(ids, split)
    if not kept:
        looked = path / split if parts and split != ALL else path
        raise DataError(
            f"{looked}: expected pictures ({', '.join(SUFFIXES)}) for the split {split}, found "
            f"{f'{len(ids)}, too few to split: take the split {ALL}' if ids else 'none'}."
        )
    if len(kept) < len(ids):
        text = (
            f"{path}: has no folders train, validation and test, so {len(kept)} of its {len(ids)} pictures, drawn by their names, "
            f"are the split {split}. Put pictures below {split} to choose them, or take the split {ALL}."
        )
        warnings.warn(text, OdefendWarning, stacklevel=2)
    return LabelledImages(
        decode_all([chosen[i] for i in kept], wanted, grey=grey),
        torch.tensor([labels[chosen[i]] for i in kept]),
        tuple(ids[i] for i in kept),
    )


def pictures_below(paths: Sequence[Path]) -> list[Path]:
    """Single pictures, as they are named, and those below folders. Raises DataError, which names the file or folder, where there
    is none."""
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file.")
    files = [file for path in paths for file in (_pictures(path) if path.is_dir() else [path])]
    if not files:
        raise DataError(f"{paths[0] if paths else 'no path'}: expected pictures ({', '.join(SUFFIXES)}), found none.")
    return files


def batches(
    files: Sequence[Path], most: int, unread: Callable[[str, str], None], *, grey: bool = False
) -> Iterator[LabelledImages]:
    """Pictures, whatever their sizes, without labels (-1): one after the other, as many at once as have one size, up to `most`, and
    together no more than one picture may have. `unread` is told the name of a file that `decode` refuses, and why."""
    group = list[tuple[str, np.ndarray]]()
    for file in files:
        try:
            pixels = decode(file, grey=grey)
        except DataError as error:
            unread(readable(str(file)), str(error).removeprefix(f"{file}: "))
            continue
        room = 3 * MOST_PIXELS - sum(one.size for _, one in group)
        if group and (len(group) == most or pixels.shape != group[0][1].shape or pixels.size > room):
            yield _unlabelled(group)
            group = []
        group.append((readable(str(file)), pixels))
    if group:
        yield _unlabelled(group)


def _unlabelled(group: list[tuple[str, np.ndarray]]) -> LabelledImages:
    names, pixels = zip(*group, strict=True)
    return LabelledImages(torch.from_numpy(np.stack(pixels)), torch.full((len(group),), -1), names)


def readable(name: str) -> str:
    """The name of a file, in which bytes that are no UTF-8 are told as escapes: rows and reports hold characters alone."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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
