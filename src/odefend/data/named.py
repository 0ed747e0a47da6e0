"""Data by whatever name: a data set, a folder of pictures, or a user's own function."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odefend.data.families import DATASETS
from odefend.data.folder import folder
from odefend.data.images import LabelledImages
from odefend.errors import InvalidInput, OdefendError, unknown
from odefend.named import is_own, own, told


def named_data(name: str, split: str, options: Mapping[str, Any] | None = None) -> LabelledImages:
    """One split of a data set by its name, with its options; or of a folder with one sub-folder per class, by its path (see
    `folder`); or what `file.py:callable` or `package.module:callable` gives, called with `split` and the options: LabelledImages,
    or images (N, C, H, W) and labels (N,).

    Raises UnknownName for none of these, and InvalidInput where the callable raises or gives something else.
    """
    given = dict(options or {})
    if name in DATASETS:
        return DATASETS[name](split, **given)
    if is_own(name):
        return _own(name, split, given)
    if Path(name).is_dir():
        return folder(split, path=name, **given)
    raise unknown("data set (or folder)", name, DATASETS)


def _own(name: str, split: str, options: dict[str, Any]) -> LabelledImages:
    try:
        made = own(name)(split=split, **options)
    except OdefendError:
        raise
    except Exception as error:
        raise InvalidInput(f"{name}: called with split={split!r} and its options, it raised {told(error)}.") from error
    if isinstance(made, LabelledImages):
        return made
    if not (isinstance(made, tuple) and len(made) == 2 and all(isinstance(one, Tensor) for one in made)):
        raise InvalidInput(f"{name}: expected images and labels, two tensors, got {type(made).__name__}.")
    images, labels = made
    ids = tuple(f"{Path(name.rpartition(':')[0]).stem}/{split}/{index:05d}" for index in range(len(images)))
    return LabelledImages(images, labels.to(torch.int64), ids)
