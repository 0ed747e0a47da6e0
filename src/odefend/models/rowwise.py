"""The state of a call of torchdiffeq with one row for each image, whatever parts it has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odefend.models.asked import Asked
from odefend.models.scalar_time import ScalarTimeField
from odefend.solver.control import Norm, rms
from odefend.tensors import State


@dataclass(frozen=True)
class Rowwise:
    """dy/dt = f(t, y) from a state with rows; `given_back` makes of states at several times, (times, rows, ...), those of the
    shape that torchdiffeq wants."""

    f: ScalarTimeField
    state: State
    norm: Norm
    given_back: Callable[[Tensor], Tensor]


def one_row(asked: Asked) -> Rowwise:
    """The whole batch as it is, under the call's own norm, which for a tuple is that of its largest part."""
    f, y0, norm = asked.f, asked.y0, asked.options["norm"]
    state = y0
    if y0.ndim < 2:
        f, state = _Reshaped(f, y0.shape), y0.reshape(1, -1)
    return Rowwise(
        f,
        state,
        lambda error: norm(error.reshape(y0.shape)).double().reshape(1),
        lambda path: path.reshape(len(path), *y0.shape),
    )


def row_for_each(asked: Asked, batch: int) -> Rowwise | None:
    """With a row for each of `batch` images; None where the state has none, or where the call has a norm of its own, which knows
    no rows."""
    shapes = asked.shapes or [asked.y0.shape]
    if asked.own_norm or any(not shape or shape[0] != batch for shape in shapes):
        return None
    if asked.shapes is None and asked.y0.ndim > 1:
        return Rowwise(asked.f, asked.y0, rms, lambda path: path)
    parts = _Parts(shapes)
    given = [
        part.reshape(shape) for part, shape in zip(asked.y0.split([s.numel() for s in shapes]), shapes, strict=True)
    ]

    def norm(error: State) -> Tensor:
        return torch.stack([rms(part.reshape(len(part), -1)) for part in parts.split(error)]).amax(0)

    def given_back(path: Tensor) -> Tensor:
        return torch.cat([piece.reshape(len(path), -1) for piece in path.split(parts.widths, 2)], 1)

    return Rowwise(_InParts(asked, parts), parts.join(given), norm, given_back)


class _Parts:
    """Several tensors, each with a row for each image, side by side as one state (rows, numbers)."""

    def __init__(self, shapes: list[torch.Size]) -> None:
        self.shapes = [shape[1:] for shape in shapes]
        self.widths = [shape.numel() for shape in self.shapes]

    def join(self, parts: Any) -> State:
        return torch.cat([part.reshape(len(part), -1) for part in parts], 1)

    def split(self, state: State) -> list[Tensor]:
        pieces = state.split(self.widths, 1)
        return [piece.reshape(len(state), *shape) for piece, shape in zip(pieces, self.shapes, strict=True)]


class _InParts(nn.Module):
    """A field of parts as one of their joint state."""

    def __init__(self, asked: Asked, parts: _Parts) -> None:
        super().__init__()
        self.f: Any = asked.written
        self.parts, self.a_tuple, self.sign = parts, asked.shapes is not None, asked.sign

    def forward(self, t: Tensor, y: State) -> State:
        given = tuple(self.parts.split(y))
        slope = self.f(self.sign * t, given) if self.a_tuple else (self.f(self.sign * t, given[0]),)
        return self.sign * self.parts.join(slope)


class _Reshaped(nn.Module):
    """A field of vectors as one of a batch with one row."""

    def __init__(self, f: Any, shape: torch.Size) -> None:
        super().__init__()
        self.f, self.shape = f, shape

    def forward(self, t: Tensor, y: State) -> State:
        return self.f(t, y.reshape(self.shape)).reshape(y.shape)
