"""How many steps a solve will take, estimated without taking them: smooth in the state it starts from."""

import torch
from torch import Tensor

from odefend.errors import InvalidInput, unknown
from odefend.solver.control import Tolerance, error_ratio, rms, root, tolerances
from odefend.solver.field import padded
from odefend.solver.methods import METHODS
from odefend.solver.step import VectorField, attempt
from odefend.tensors import PerImage, State


def effort(
    f: VectorField,
    y0: State,
    t0: float = 0.0,
    t1: float | Tensor = 1.0,
    *,
    method: str = "dopri5",
    tolerance: Tolerance = 1e-3,
    grid: int = 8,
) -> PerImage:
    """The number of steps from t0 to t1 that the tolerance asks for, not rounded, one per sample; differentiable.

    `t1` is one time or one per sample. The interval is crossed in `grid` equal steps. Where the error of one is r times the
    tolerated one, the control of step sizes wants r^(1/order) steps in its place, and the sum of these is the estimate; steps
    that are not much larger than those the tolerance asks for make it a good one. Unlike the number of steps itself it has a
    gradient.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    tableau = METHODS[method]
    if not tableau.adaptive:
        raise InvalidInput(f"method: expected an adaptive one, got {method!r}, whose steps do not depend on the state.")
    rtol, atol = tolerances(tolerance, len(y0), y0.device)
    h = (torch.as_tensor(t1, dtype=rtol.dtype, device=rtol.device) - t0).expand_as(rtol) / grid
    f, y, total = padded(f, 1), y0, torch.zeros_like(rtol)
    slope = f(torch.full_like(rtol, t0).to(y.dtype), y)
    for step in range(grid):
        done = attempt(f, t0 + step * h, h, y, slope, (), tableau)
        ratio = error_ratio(rms, done.error(tableau), h, y, done.y, rtol, atol)
        total = total + root(ratio.clamp_min(1e-30), tableau.order)
        y, slope = done.y, done.stages[-1]
    return total.to(y0.dtype)
