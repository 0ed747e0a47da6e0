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


class _Move(torch.autograd.Function):
    """y + h sum_j weights_j * terms_j in one node, without an intermediate per term."""

    @staticmethod
    def forward(ctx: Any, weights: tuple[float, ...], y: Tensor, h: Tensor, *terms: Tensor) -> Tensor:
        ctx.weights = weights
        # The terms are needed for h alone, and themselves rather than their sum, so that h's gradient is differentiable.
        ctx.save_for_backward(h, *(terms if ctx.needs_input_grad[2] else ()))
        # The first weight goes into the scale, which is one number per sample: that costs no pass over the state.
        first, *others = terms
        if not others:
            return torch.addcmul(y, h * weights[0], first)
        total = torch.add(first, others[0], alpha=weights[1] / weights[0])
        for weight, term in zip(weights[2:], others[1:], strict=True):
            total.add_(term, alpha=weight / weights[0])
        return torch.addcmul(y, h * weights[0], total, out=total)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,), (h, *terms) = grads, ctx.saved_tensors
        for_h = (grad * weighted_sum(ctx.weights, terms)).flatten(1).sum(1).view_as(h) if terms else None
        wanted = ctx.needs_input_grad[3:]
        return (
            None,
            grad,
            for_h,
            *(grad * (h * weight) if want else None for weight, want in zip(ctx.weights, wanted, strict=True)),
        )


def weighted_sum(weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """sum_j weights_j * terms_j; with one new tensor where no gradient is wanted."""
    add = Tensor.add if torch.is_grad_enabled() else Tensor.add_
    total = terms[0] * weights[0]
    for weight, term in zip(weights[1:], terms[1:], strict=True):
        total = add(total, term, alpha=weight)
    return total


def moved(y: State, scale: Tensor, weights: Sequence[float], terms: Sequence[State]) -> State:
    """y + scale * sum_j weights_j * terms_j, `scale` as `per_sample` gives it; differentiable in all tensors."""
    weights, terms = _needed(weights, terms)
    return _Move.apply(weights, y, scale, *terms)


def _needed(weights: Sequence[float], terms: Sequence[State]) -> tuple[tuple[float, ...], tuple[State, ...]]:
    """The weights that are not zero, and their terms."""
    chosen = [j for j, weight in enumerate(weights) if weight]
    return tuple(weights[j] for j in chosen), tuple(terms[j] for j in chosen)


def per_sample(values: Tensor, like: State) -> Tensor:
    """One number per sample, in the dtype of a state and shaped to be multiplied with it."""
    return values.to(like.dtype).view(-1, *([1] * (like.ndim - 1)))


@dataclass(frozen=True)
class Attempt:
    """What an attempted step of size h from (t, y) found: the state at t + h, and all stages' slopes.

    The last stage of an adaptive method is the slope at the new state.
    """

    y: State
    stages: tuple[State, ...]

    def take(self, rows: Index) -> "Attempt":
        """The same for some of the samples."""
        return self.map(lambda state: state[rows])

    def map(self, change: Callable[[State], State]) -> "Attempt":
        """The same with all states changed."""
        return Attempt(change(self.y), tuple(change(stage) for stage in self.stages))

    def error(self, tableau: Tableau) -> State:
        """The embedded estimate of the local error of an adaptive method, per unit of step size."""
        return weighted_sum(*_needed(tableau.error, self.stages))


def attempt(
    f: VectorField, t: Times, h: Times, y: State, slope: State, args: tuple[Tensor, ...], tableau: Tableau
) -> Attempt:
    """One step of size `h` from (t, y) where `slope` = f(t, y)."""
    scale = per_sample(h, y)
    stages = [slope]
    state = y
    for c, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        state = moved(y, scale, row, stages)
        stages.append(f((t + c * h).to(y.dtype), state, *args).to(y.dtype))
    if not tableau.adaptive:
        state = moved(y, scale, tableau.weights, stages)
    return Attempt(state, tuple(stages))


def interpolate(done: Attempt, y: State, h: Times, x: Tensor, tableau: Tableau) -> State:
    """The state at t + x h for 0 <= x <= 1, with `y` the state that the step `done` began at."""
    one, two, three, four = torch.tensor(tableau.interpolant, dtype=torch.float64, device=x.device)[..., None]
    # Elementwise: how a matrix product rounds depends on the size of the batch.
    weights = h * x * (one + x * (two + x * (three + x * four)))
    for weight, stage in zip(weights, done.stages, strict=True):
        y = torch.addcmul(y, per_sample(weight, y), stage)
    return y
