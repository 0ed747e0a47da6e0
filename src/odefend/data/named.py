"""Data by whatever name: a data set, a folder of pictures, or a user's own function."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from odefend.data.families import DATASETS
from odefend.data.images import LabelledImages
from odefend.errors import InvalidInput, OdefendError, unknown
from odefend.named import is_own, own, told


def named_data(name: str, split: str, options: Mapping[str, Any] | None = None) -> LabelledImages:
    """One split of a data set by its name, with its options; or of a folder with one sub-folder per class, by its path (see
    `folder`); or what `file.py:callable` or `package.module:callable` gives, called with `split` and the options: LabelledImages,
    or images (N, C, H, W) and labels (N,).

    Raises what `check_data` and the data set raise, and InvalidInput where the callable raises or gives something else.
    """
    kind, wanted = check_data(name, options or {})
    return kind(split, **wanted)


def check_data(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., LabelledImages], dict[str, Any]]:
    """The function that gives the splits of what is named, and its options as it takes them.

    Raises UnknownName for an unknown data set or option, with the nearest, and InvalidInput for a missing option or a value of
    the wrong type. What a function of the user's own takes is not looked at.
    """
    if is_own(name):
        return partial(_own, name), dict(options)
    if name not in DATASETS and Path(name).is_dir():
        name, options = "folder", {"path": name, **options}
    if name not in DATASETS:
        raise unknown("data set (or folder)", name, DATASETS)
    known = {key: one for key, one in signature(DATASETS[name]).parameters.items() if key != "split"}
    for key in options:
        if key not in known:
            raise unknown(f"option of the data set {name!r},", key, known)
    missing = [key for key, one in known.items() if one.default is one.empty and key not in options]
    if missing:
        raise InvalidInput(
            f"data: expected the option {missing[0]} of the data set {name!r}, got none. A folder of pictures can also be named "
            "itself, as the data set."
        )
    return DATASETS[name], {key: _value(key, known[key].annotation, value) for key, value in options.items()}


def _value(key: str, kind: Any, value: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InvalidInput(f"{key}: {error.errors()[0]['msg'].lower()}; got {value!r}.") from error


def _own(name: str, split: str, **options: Any) -> LabelledImages:
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
