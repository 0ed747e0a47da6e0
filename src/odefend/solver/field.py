"""How a vector field is called, so that what it gives can be relied on."""

from typing import Any

import torch
from torch import Tensor

from odefend.errors import InvalidInput
from odefend.solver.step import VectorField
from odefend.tensors import State

PADDED_ROWS = 16
"""Below this many rows the linear algebra kernels may round differently, so smaller active sets are padded."""


def padded(f: VectorField, rows: int) -> VectorField:
    """f called on at least `rows` samples (repeating some), so that its rounding does not change as samples leave.

    What it gives is kept from call to call, whether or not f writes it into the same memory every time.
    """
    fresh = _Fresh()

    def at_least(t: Tensor, y: Tensor, *args: Tensor) -> Tensor:
        count = len(y)
        if count >= rows:
            # Through views, which keep the order in which gradients are summed up the same as with padding.
            return fresh(_called(f, t, y.view_as(y), *(arg.view_as(arg) for arg in args)))
        index = torch.arange(rows, device=y.device) % count
        return fresh(_called(f, t[index], y[index], *(arg[index] for arg in args)))[:count]

    return at_least


def _called(f: VectorField, t: Tensor, y: State, *args: Tensor) -> State:
    """f(t, y, *args); InvalidInput unless it is a slope for y and y is as it was."""
    before = None if y.is_inference() else y._version
    slope: Any = f(t, y, *args)
    if not isinstance(slope, Tensor) or slope.shape != y.shape:
        got = tuple(slope.shape) if isinstance(slope, Tensor) else type(slope).__name__
        raise InvalidInput(f"f: expected a slope of the state's shape {tuple(y.shape)}, got {got}.")
    if before is not None and y._version != before:
        raise InvalidInput(
            "f: expected the state it is given to stay as it is, got one changed in place. Is its first layer an "
            "activation with inplace=True?"
        )
    return slope


class _Fresh:
    """Copies of what f gives, if it gives the same memory twice; its first answer is copied in any case."""

    def __init__(self) -> None:
        self.first: Tensor | None = None
        self.copies: bool | None = None

    def __call__(self, slope: State) -> State:
        if self.first is None and self.copies is None:
            # Kept until the next call, so that a new tensor cannot come to stand in its place.
            self.first = slope
            return slope.clone()
        if self.first is not None:
            self.copies = slope.untyped_storage().data_ptr() == self.first.untyped_storage().data_ptr()
            self.first = None
        return slope.clone() if self.copies else slope
