"""One attempted Runge-Kutta step for a batch in which every sample has its own time and step size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odefend.solver.tableau import Tableau
from odefend.tensors import Index, State, Times

VectorField = Callable[..., Tensor]
"""f(t, y, *args) -> dy/dt with t of shape (B,) and y, dy/dt of shape (B, ...)."""


class _WeightedSum(torch.autograd.Function):
    """sum_j weights_j * terms_j without an intermediate per term, neither kept nor differentiated through."""

    @staticmethod
    def forward(ctx: Any, weights: tuple[float, ...], *terms: Tensor) -> Tensor:
        ctx.weights = weights
        total = terms[0] * weights[0]
        for weight, term in zip(weights[1:], terms[1:], strict=True):
            total.add_(term, alpha=weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return (None, *(grads[0] * weight for weight in ctx.weights))


def weighted_sum(weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """sum_j weights_j * terms_j, skipping zero weights; at least one weight is not zero."""
    pairs = [(weight, term) for weight, term in zip(weights, terms, strict=True) if weight]
    return _WeightedSum.apply(tuple(weight for weight, _ in pairs), *(term for _, term in pairs))


def per_sample(values: Tensor, like: State) -> Tensor:
    """One number per sample, in the dtype of a state and shaped to be multiplied with it."""
    return values.to(like.dtype).view(-1, *([1] * (like.ndim - 1)))


@dataclass(frozen=True)
class Attempt:
    """What an attempted step of size h from (t, y) found: the state at t + h, its slope, and all stages' slopes."""

    y: State
    f: State
    stages: tuple[State, ...]

    def take(self, rows: Index) -> "Attempt":
        """The same for some of the samples."""
        return Attempt(self.y[rows], self.f[rows], tuple(stage[rows] for stage in self.stages))

    def error(self, h: Times, tableau: Tableau) -> State:
        """The embedded estimate of the local error."""
        return per_sample(h, self.y) * weighted_sum(tableau.error, self.stages)


def attempt(
    f: VectorField, t: Times, h: Times, y: State, slope: State, args: tuple[Tensor, ...], tableau: Tableau
) -> Attempt:
    """One step of size `h` from (t, y) where `slope` = f(t, y)."""
    scale = per_sample(h, y)
    stages = [slope]
    state = y
    for c, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        state = torch.addcmul(y, scale, weighted_sum(row, stages))
        stages.append(f((t + c * h).to(y.dtype), state, *args).to(y.dtype))
    return Attempt(state, stages[-1], tuple(stages))


def interpolate(done: Attempt, y: State, h: Times, x: Tensor, tableau: Tableau) -> State:
    """The state at t + x h for 0 <= x <= 1: the quartic through both ends, both slopes and the midpoint.

    Shampine 1986 (doi 10.1090/S0025-5718-1986-0815836-3); `y` is the state that the step `done` began at.
    """
    scale, x = per_sample(h, y), per_sample(x, y)
    middle = torch.addcmul(y, scale, weighted_sum(tableau.middle, done.stages))
    f0, f1 = scale * done.stages[0], scale * done.f
    a = 2 * (f1 - f0) - 8 * (done.y + y) + 16 * middle
    b = 5 * f0 - 3 * f1 + 18 * y + 14 * done.y - 32 * middle
    c = f1 - 4 * f0 - 11 * y - 5 * done.y + 16 * middle
    return y + x * (f0 + x * (c + x * (b + x * a)))
