"""The adaptive solver: every sample has its own time, step size, tolerance, status and count of work."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor

from odefend.errors import InvalidInput, unknown
from odefend.solver.control import Tolerance, error_ratio, first_step, next_step, tolerances
from odefend.solver.step import Attempt, VectorField, attempt, interpolate
from odefend.solver.tableau import METHODS, Tableau
from odefend.tensors import Counts, Index, Mask, State, Times

ENDS = ("interpolate", "clip")
GRADIENTS = ("unrolled", "exact")

PADDED_ROWS = 16
"""Below this many rows the linear algebra kernels may round differently, so smaller active sets are padded."""


class Status(IntEnum):
    """How the integration of one sample ended."""

    SUCCESS = 0
    MAX_STEPS = 1
    STEP_UNDERFLOW = 2
    NON_FINITE = 3


@dataclass(frozen=True)
class Statistics:
    """The work done for each sample: evaluations of f, accepted and rejected steps."""

    nfe: Counts
    accepted: Counts
    rejected: Counts


@dataclass(frozen=True)
class Solution:
    """`y` at t1 where `status` is SUCCESS, else the last finite accepted state; `stats` per sample."""

    y: State
    status: Counts
    stats: Statistics


def solve(
    f: VectorField,
    y0: Tensor,
    t0: float | Tensor = 0.0,
    t1: float | Tensor = 1.0,
    *,
    args: Sequence[Tensor] = (),
    method: str = "dopri5",
    tolerance: Tolerance = 1e-3,
    max_steps: int = 1000,
    end: str = "interpolate",
    gradient: str = "unrolled",
) -> Solution:
    """Integrate dy/dt = f(t, y, *args) from t0 to t1, each sample of the batch on its own.

    f is called with t of shape (B,) in the dtype of y, with y of shape (B, ...) and with args whose rows follow the
    batch; samples that are done leave it, so B shrinks. An answer never depends on the neighbours in the batch.

    tolerance: one value for rtol and atol, a pair (rtol, atol), or one value per sample; > 0.
    end: "interpolate" steps past t1 and evaluates the step's quartic there, as torchdiffeq does (f sees t > t1);
        "clip" shortens the last step to end at t1.
    gradient: "unrolled" differentiates the accepted steps with their sizes held constant; "exact" differentiates
        everything but the decision to accept: the first step, the step sizes, the times given to f, the rejected
        attempts and the interpolation coordinate.
    max_steps: attempts per sample, after which its status is MAX_STEPS.

    Trouble with one sample is a status, and the others go on. Raises InvalidInput for wrong use.
    """
    _check(y0, method, end, gradient, max_steps)
    batch, device = len(y0), y0.device
    start = torch.as_tensor(t0, dtype=torch.float64, device=device).expand(batch)
    stop = torch.as_tensor(t1, dtype=torch.float64, device=device).expand(batch)
    if not bool((torch.isfinite(start) & torch.isfinite(stop) & (start <= stop)).all()):
        raise InvalidInput("t0 and t1: expected finite times with t0 <= t1. Swap them or check their values.")
    rtol, atol = tolerances(tolerance, batch, device)
    run = _Run(
        _padded(f, min(batch, PADDED_ROWS)),
        METHODS[method],
        end == "clip",
        gradient == "exact" and torch.is_grad_enabled(),
        max_steps,
    )
    return run(y0, start, stop, rtol, atol, tuple(args))


def _check(y0: Tensor, method: str, end: str, gradient: str, max_steps: int) -> None:
    for kind, name, known in (("method", method, METHODS), ("end", end, ENDS), ("gradient mode", gradient, GRADIENTS)):
        if name not in known:
            raise unknown(kind, name, known)
    if max_steps < 1:
        raise InvalidInput(f"max_steps: expected at least 1, got {max_steps}.")
    if y0.ndim < 2 or not y0.is_floating_point():
        raise InvalidInput(f"y0: expected a floating-point state (batch, ...), got {y0.dtype} of {tuple(y0.shape)}.")


def _padded(f: VectorField, rows: int) -> VectorField:
    """f called on at least `rows` samples (repeating some), so that its rounding does not change as samples leave."""

    def padded(t: Tensor, y: Tensor, *args: Tensor) -> Tensor:
        count = len(y)
        if count >= rows:
            return f(t, y, *args)
        index = torch.arange(rows, device=y.device) % count
        return f(t[index], y[index], *(arg[index] for arg in args))[:count]

    return padded


@dataclass(frozen=True)
class _Rows:
    """The samples still under way: where each stands, and its position `index` in the caller's batch."""

    index: Index
    t: Times
    h: Times
    stop: Times
    rtol: Times
    atol: Times
    y: State
    f: State
    attempts: Counts
    accepted: Counts
    finite: Mask  # whether the latest attempt was
    args: tuple[Tensor, ...]

    def take(self, rows: Tensor) -> "_Rows":
        """Some of the samples, by index or mask."""
        own = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "args"}
        return _Rows(**own, args=tuple(arg[rows] for arg in self.args))

    def join(self, other: "_Rows") -> "_Rows":
        """These samples and those."""
        own = {
            field.name: torch.cat([getattr(self, field.name), getattr(other, field.name)])
            for field in fields(self)
            if field.name != "args"
        }
        return _Rows(**own, args=tuple(torch.cat(pair) for pair in zip(self.args, other.args, strict=True)))

    def replace(self, **changes: Tensor) -> "_Rows":
        return _Rows(**{**vars(self), **changes})


class _Run:
    """One call of `solve`: the loop and what has come out of it."""

    def __init__(self, f: VectorField, tableau: Tableau, clip: bool, exact: bool, max_steps: int) -> None:
        self.f, self.tableau, self.clip, self.exact, self.max_steps = f, tableau, clip, exact, max_steps
        self.finished: list[tuple[_Rows, State, Status]] = []

    def __call__(
        self, y0: State, start: Times, stop: Times, rtol: Times, atol: Times, args: tuple[Tensor, ...]
    ) -> Solution:
        rows = self.start(y0, start, stop, rtol, atol, args)
        while len(rows.index):
            rows = self.drop_hopeless(rows)
            if len(rows.index):
                rows = self.advance(rows)
        return self.collect(y0, start < stop)

    def controlling(self) -> torch.set_grad_enabled:
        """The context in which step sizes are computed: with gradients in exact mode only."""
        return torch.set_grad_enabled(self.exact)

    def start(self, y0: State, start: Times, stop: Times, rtol: Times, atol: Times, args: tuple[Tensor, ...]) -> _Rows:
        zeros = torch.zeros(len(y0), dtype=torch.int64, device=y0.device)
        index = torch.arange(len(y0), device=y0.device)
        finite = torch.ones_like(zeros, dtype=torch.bool)
        rows = _Rows(index, start, torch.zeros_like(start), stop, rtol, atol, y0, y0, zeros, zeros, finite, args)
        rows = self.finish(rows, start == stop, rows.y, Status.SUCCESS)
        if not len(rows.index):
            return rows
        slope = self.f(rows.t.to(y0.dtype), rows.y, *rows.args).to(y0.dtype)
        with self.controlling():
            h = first_step(self.f, rows.t, rows.y, slope, rows.rtol, rows.atol, rows.args, self.tableau.order)
            # As torchdiffeq does with a first step that is not finite (a slope whose norm overflows).
            h = torch.where(torch.isfinite(h), h, 1e-6 * (rows.stop - rows.t))
        rows = rows.replace(f=slope, h=h)
        healthy = torch.isfinite(rows.y.flatten(1)).all(1) & torch.isfinite(slope.flatten(1)).all(1)
        return self.finish(rows, ~healthy, rows.y, Status.NON_FINITE)

    def finish(self, rows: _Rows, done: Mask, y: State, status: Status) -> _Rows:
        """Put the samples that are `done` aside, with their state among `y`; the others remain."""
        if not bool(done.any()):
            return rows
        self.finished.append((rows.take(done), y[done], status))
        return rows.take(~done)

    def drop_hopeless(self, rows: _Rows) -> _Rows:
        """Finish the samples that have used up their attempts or whose step is below 10 ulp of the time."""
        spent = rows.attempts >= self.max_steps
        magnitude = torch.maximum(rows.t.detach().abs(), rows.stop.abs())
        ulp = torch.nextafter(magnitude, torch.full_like(magnitude, torch.inf)) - magnitude
        tiny = ~spent & ~(rows.h.detach() >= 10 * ulp)
        hopeless = spent | tiny
        if not bool(hopeless.any()):
            return rows
        for status, mask in (
            (Status.MAX_STEPS, spent),
            (Status.STEP_UNDERFLOW, tiny & rows.finite),
            (Status.NON_FINITE, tiny & ~rows.finite),
        ):
            self.finish(rows, mask, rows.y, status)
        return rows.take(~hopeless)

    def advance(self, rows: _Rows) -> _Rows:
        """Attempt one step for every sample: move those that accept it, finish those that reach their end."""
        with self.controlling():
            left = rows.stop - rows.t
            h = torch.minimum(rows.h, left) if self.clip else rows.h
        step, ratio = self.attempt(rows, h)
        finite = torch.isfinite(ratio)
        if not bool(finite.all()):
            failed = rows.take(~finite)
            with self.controlling():
                failed = failed.replace(
                    h=next_step(h[~finite], ratio[~finite].detach(), self.tableau.order),
                    attempts=failed.attempts + 1,
                    finite=torch.zeros_like(failed.finite),
                )
            rows, h = rows.take(finite), h[finite]
            if not len(rows.index):
                return failed
            # 0 * NaN is NaN: a graph that holds a broken sample would spoil its neighbours' gradients.
            if torch.is_grad_enabled():
                step, ratio = self.attempt(rows, h)
            else:
                step, ratio = step.take(finite.nonzero()[:, 0]), ratio[finite]
            return self.move(rows, h, step, ratio).join(failed)
        return self.move(rows, h, step, ratio)

    def attempt(self, rows: _Rows, h: Times) -> tuple[Attempt, Times]:
        step = attempt(self.f, rows.t, h, rows.y, rows.f, rows.args, self.tableau)
        with self.controlling():
            ratio = error_ratio(step.error(h, self.tableau), rows.y, step.y, rows.rtol, rows.atol)
        return step, ratio

    def move(self, rows: _Rows, h: Times, step: Attempt, ratio: Times) -> _Rows:
        accept = ratio <= 1
        with self.controlling():
            t = rows.t + h
            if self.clip:
                t = torch.where(h >= rows.stop - rows.t, rows.stop, t)
        done = accept & (t >= rows.stop)
        self.reach(rows, h, step, done)
        with self.controlling():
            moved = rows.replace(
                t=torch.where(accept, t, rows.t),
                h=next_step(h, ratio, self.tableau.order),
                attempts=rows.attempts + 1,
                accepted=rows.accepted + accept,
                finite=torch.ones_like(rows.finite),
            )
        if bool(accept.all()):
            moved = moved.replace(y=step.y, f=step.f)
        else:
            gone = accept.nonzero()[:, 0]
            moved = moved.replace(
                y=rows.y.index_copy(0, gone, step.y[gone]), f=rows.f.index_copy(0, gone, step.f[gone])
            )
        return moved.take(~done) if bool(done.any()) else moved

    def reach(self, rows: _Rows, h: Times, step: Attempt, done: Mask) -> None:
        """Record the samples whose accepted step reaches t1."""
        index = done.nonzero()[:, 0]
        if not len(index):
            return
        there, size, last = rows.take(index), h[index], step.take(index)
        if self.clip:
            y = last.y
        else:
            with self.controlling():
                x = (there.stop - there.t) / size
            y = interpolate(last, there.y, size, x, self.tableau)
        ended = there.replace(attempts=there.attempts + 1, accepted=there.accepted + 1)
        self.finished.append((ended, y, Status.SUCCESS))

    def collect(self, y0: State, started: Mask) -> Solution:
        """Everything that finished, in the caller's order."""
        if not len(y0):
            none = torch.zeros(0, dtype=torch.int64, device=y0.device)
            return Solution(y0, none, Statistics(none, none, none))
        order = torch.argsort(torch.cat([rows.index for rows, _, _ in self.finished]))
        attempts = torch.cat([rows.attempts for rows, _, _ in self.finished])[order]
        accepted = torch.cat([rows.accepted for rows, _, _ in self.finished])[order]
        status = torch.cat([torch.full_like(rows.index, status) for rows, _, status in self.finished])[order]
        # Two evaluations choose the first step; the last stage of a step is the first of the next.
        nfe = 2 * started + (len(self.tableau.c) - 1) * attempts
        return Solution(
            torch.cat([y for _, y, _ in self.finished])[order], status, Statistics(nfe, accepted, attempts - accepted)
        )
