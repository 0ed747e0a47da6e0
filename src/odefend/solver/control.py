"""How long a step is: error norms, the first step and the next one, all per sample.

The rules and constants are those of torchdiffeq 0.2.5 (Hairer, Norsett & Wanner, Solving ODEs I, sections II.4), with
the norm taken over each sample's own elements. Everything here is differentiable; the solver decides whether to.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from odefend.errors import InvalidInput
from odefend.solver.step import VectorField, per_sample
from odefend.tensors import State, Times

Tolerance = float | tuple[float | Tensor, float | Tensor] | Tensor
"""One value for rtol and atol, a pair (rtol, atol), or a tensor with one value per sample (pairs of tensors too)."""

Norm = Callable[[State], Times]
"""The size of each sample of a scaled error, one float64 number >= 0 each."""

SAFETY, GROW, SHRINK = 0.9, 10.0, 0.2


def tolerances(tolerance: Tolerance, batch: int, device: torch.device) -> tuple[Times, Times]:
    """(rtol, atol), one float64 value per sample; InvalidInput unless all are positive and finite."""
    pair = tolerance if isinstance(tolerance, tuple) else (tolerance, tolerance)
    if len(pair) != 2:
        raise InvalidInput(f"tolerance: expected one value or a pair (rtol, atol), got {len(pair)} values.")
    rtol, atol = (torch.as_tensor(value, dtype=torch.float64, device=device) for value in pair)
    for value in (rtol, atol):
        if value.ndim > 1 or (value.ndim == 1 and len(value) != batch):
            raise InvalidInput(
                f"tolerance: expected one value or one per sample ({batch}), got shape {tuple(value.shape)}. "
                "Take a view of the net for these images with .rows(index)."
            )
        if not bool(((value > 0) & torch.isfinite(value)).all()):
            worst = value.reshape(-1)[~((value > 0) & torch.isfinite(value)).reshape(-1)][0].item()
            raise InvalidInput(f"tolerance: expected a positive finite number, got {worst:g}. Try 1e-3.")
    return rtol.expand(batch), atol.expand(batch)


def rms(values: State) -> Times:
    """Root mean square over each sample's elements."""
    flat = values.flatten(1)
    return torch.linalg.vector_norm(flat, dim=1).double() / max(flat.shape[1], 1) ** 0.5


def size(norm: Norm, values: State) -> Times:
    """The norm of each sample, with the gradient 0 where it is 0: there the derivative of a root is infinite, and what is
    not chosen by a rule would count 0 * inf."""
    found = norm(values)
    zero = found.detach() == 0
    if not torch.is_grad_enabled() or not bool(zero.any()):
        return found
    elsewhere = torch.where(zero.view(-1, *[1] * (values.ndim - 1)), 1.0, values)
    return torch.where(zero, 0.0, norm(elsewhere))


def error_ratio(norm: Norm, error: State, h: Times, y0: State, y1: State, rtol: Times, atol: Times) -> Times:
    """Estimated error h * error over what is tolerated; a step is accepted where this is at most 1.

    Where no gradient is wanted, `error` is overwritten.
    """
    rtol_, atol_ = per_sample(rtol, y0), per_sample(atol, y0)
    if torch.is_grad_enabled():
        return h * size(norm, error / torch.addcmul(atol_, rtol_, torch.maximum(y0.abs(), y1.abs())))
    scale = y1.abs()
    torch.maximum(scale, y0.abs(), out=scale)
    torch.addcmul(atol_, rtol_, scale, out=scale)
    return h * norm(error.div_(scale))


def root(values: Times, order: int) -> Times:
    """The root of that order of positive values.

    Not by torch.pow, whose last bit depends on where in a vector a value stands: a sample's steps would depend on its
    place in the batch.
    """
    return torch.exp(torch.log(values) / order)


def ten_ulp(values: Times) -> Times:
    """Ten times the distance to the next larger number."""
    sizes = values.abs()
    return 10 * (torch.nextafter(sizes, torch.full_like(sizes, torch.inf)) - sizes)


def next_step(h: Times, ratio: Times, order: int) -> Times:
    """The step size to try next; after an accepted step not a smaller one (but for a ratio of exactly 1)."""
    finite = torch.isfinite(ratio)
    positive = torch.where(finite & (ratio > 0), ratio, 1)
    factor = SAFETY / root(positive, order)
    factor = torch.maximum(factor, torch.where(ratio < 1, 1.0, SHRINK)).clamp_max(GROW)
    factor = torch.where(ratio == 0, GROW, factor)
    return h * torch.where(finite, factor, SHRINK)


def first_step(
    f: VectorField,
    t: Times,
    y: State,
    slope: State,
    rtol: Times,
    atol: Times,
    args: tuple[Tensor, ...],
    order: int,
    norm: Norm,
    furthest: Times,
) -> Times:
    """A first step size by the rule of Hairer et al.; calls f once, at most `furthest` ahead. Not finite or 0 where the slope is
    not finite or overflows the norm."""
    scale = torch.addcmul(per_sample(atol, y), per_sample(rtol, y), y.abs())
    d0, d1 = size(norm, y / scale), size(norm, slope / scale)
    small = (d0 < 1e-5) | (d1 < 1e-5)
    h0 = torch.minimum(torch.where(small, 1e-6, 0.01 * d0 / torch.where(small, 1, d1)), furthest)
    ahead = f((t + h0).to(y.dtype), torch.addcmul(y, per_sample(h0, y), slope), *args).to(y.dtype)
    d2 = size(norm, (ahead - slope) / scale) / h0
    still = (d1 <= 1e-15) & (d2 <= 1e-15)
    h1 = torch.where(
        still,
        (h0 * 1e-3).clamp_min(1e-6),
        root(0.01 / torch.where(still, 1, torch.maximum(d1, d2)), order),
    )
    return torch.minimum(100 * h0, h1)
