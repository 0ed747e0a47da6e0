"""Tampering with pictures, by name; what is random in it is a function of seed and picture."""

from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from odefend.data.images import shuffled
from odefend.data.pictures import to_array, to_picture
from odefend.data.tampering_kinds import (
    JPEG,
    Blur,
    CopyMove,
    DoubleJPEG,
    Equalize,
    Gamma,
    Mean,
    Median,
    Noise,
    Resize,
    Rotate,
    Sharpen,
    Splice,
    Tampering,
)
from odefend.errors import InvalidInput, unknown
from odefend.rng import stream

FAMILIES: dict[str, type] = {
    kind.family: kind
    for kind in (
        Median,
        Mean,
        Equalize,
        JPEG,
        DoubleJPEG,
        Resize,
        Rotate,
        Blur,
        Noise,
        Sharpen,
        Gamma,
        CopyMove,
        Splice,
    )
}

PUBLISHED = ("median-3", "median-5", "median-7", "mean-3", "mean-5", "mean-7", "equalize", "jpeg-60-444")
"""The tamperings of Caldelli et al. (ICIP 2022)."""

TAMPERINGS = (
    *PUBLISHED,
    "jpeg-90-420",
    "double-jpeg-60-90-420",
    "resize-0.8",
    "rotate-5",
    "blur-1",
    "noise-4",
    "sharpen-150",
    "gamma-0.8",
    "copy-move-0.3",
    "splice-0.3",
)
"""One of each kind and those that were published; `tampering` knows others of the same kinds."""


def name_of(tampering: Tampering) -> str:
    """As in "median-3"."""
    values = (f"{getattr(tampering, field.name)}" for field in fields(tampering))  # type: ignore[arg-type]
    return "-".join((tampering.family, *(value.removesuffix(".0") for value in values)))


def tampering(name: str) -> Tampering:
    """A tampering by its name, such as "jpeg-75-420" or "blur-1.5". Raises UnknownName or InvalidInput."""
    family = max((one for one in FAMILIES if f"{name}-".startswith(f"{one}-")), key=len, default=None)
    if family is None:
        raise unknown("tampering", name, TAMPERINGS)
    kind, values = FAMILIES[family], name.removeprefix(family).split("-")[1:]
    wanted = fields(kind)
    if len(values) != len(wanted):
        example = next(one for one in TAMPERINGS if one.startswith(family))
        raise InvalidInput(f"tampering: expected {family} with {len(wanted)} values, as in {example!r}, got {name!r}.")
    try:
        return kind(*(_TYPES[field.type](value) for field, value in zip(wanted, values, strict=True)))
    except ValueError as error:
        raise InvalidInput(f"tampering: {name!r}: {error}") from error


_TYPES = {int: int, float: float, str: str}


def tamper(
    pixels: Tensor, ids: Sequence[str], how: Tampering | str, *, seed: int = 0, donors: Tensor | None = None
) -> Tensor:
    """Pictures uint8 (N, 1 or 3, H, W), tampered with; a picture's result depends on nothing but itself, its id, the
    seed, and (for a splice) what may be spliced in: `donors`, uint8 pictures, by default the others of those given, in
    whatever order. Raises InvalidInput for anything else."""
    how = tampering(how) if isinstance(how, str) else how
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise InvalidInput(
            f"pixels: expected uint8 pictures (N, 1 or 3, height, width), got {pixels.dtype} {tuple(pixels.shape)}."
        )
    if len(ids) != len(pixels) or len(set(ids)) != len(ids):
        raise InvalidInput(f"ids: expected {len(pixels)} different ones, one for each picture, got {len(set(ids))}.")
    choose = _by_id(pixels, ids) if donors is None else _by_number(donors, pixels)
    changed = []
    for row, name in zip(pixels, ids, strict=True):
        draw = stream(seed, name, name_of(how))
        donor = choose(name, draw) if isinstance(how, Splice) else row
        changed.append(to_array(how.apply(to_picture(row.numpy()), draw, to_picture(donor.numpy()))))
    return torch.from_numpy(np.stack(changed)) if changed else pixels


_Choice = Callable[[str, np.random.Generator], Tensor]
"""A donor for the picture with this id."""


def _by_number(donors: Tensor, pixels: Tensor) -> _Choice:
    if donors.dtype != torch.uint8 or donors.ndim != 4 or donors.shape[1] != pixels.shape[1] or not len(donors):
        raise InvalidInput(
            f"donors: expected one or more uint8 pictures with {pixels.shape[1]} channels, got {donors.dtype} "
            f"{tuple(donors.shape)}."
        )
    return lambda _, draw: donors[int(draw.integers(len(donors)))]


def _by_id(pixels: Tensor, ids: Sequence[str]) -> _Choice:
    """Donors in an order of their ids alone, so that the order of the pictures does not matter."""
    order = shuffled(ids)

    def choose(name: str, draw: np.random.Generator) -> Tensor:
        if len(ids) < 2:
            raise InvalidInput("donors: expected pictures to splice from, got none besides the one to tamper with.")
        chosen = order[int(draw.integers(len(order) - 1))]
        # The last one stands in for the picture itself, which is not spliced with itself.
        return pixels[chosen if ids[chosen] != name else order[-1]]

    return choose
