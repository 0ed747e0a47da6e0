"""The solver's entry: what may be asked of it, and how each wish is carried out."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from odefend.errors import InvalidInput, unknown
from odefend.solver.adjoint import Adjoint, check_nothing_hidden
from odefend.solver.control import Norm, Tolerance, rms, tolerances
from odefend.solver.field import PADDED_ROWS
from odefend.solver.methods import METHODS
from odefend.solver.problem import Plan, Problem
from odefend.solver.shares import in_threads, shares
from odefend.solver.solution import Solution, Statistics, StepLog
from odefend.solver.step import VectorField
from odefend.tensors import State, Times

COUPLINGS = ("sample", "batch")
ENDS = ("interpolate", "clip")
GRADIENTS = ("unrolled", "exact", "torchdiffeq", "checkpoint", "adjoint")


RECOMPUTED = ("checkpoint", "adjoint")
"""The gradient modes that keep no intermediate values."""

CACHED_BYTES = 2**21
"""How large a state may be to stay in a core's cache; measured with `make bench`."""


def solve(
    f: VectorField,
    y0: Tensor,
    t0: float | Tensor = 0.0,
    t1: float | Tensor = 1.0,
    *,
    args: Sequence[Tensor] = (),
    times: Sequence[float] | Tensor | None = None,
    method: str = "dopri5",
    tolerance: Tolerance = 1e-3,
    step: float | None = None,
    max_steps: int = 1000,
    coupling: str = "sample",
    end: str = "interpolate",
    gradient: str = "unrolled",
    adjoint_tolerance: Tolerance | None = None,
    norm: Norm = rms,
    log: bool = False,
) -> Solution:
    """Integrate dy/dt = f(t, y, *args) from t0 to t1, each sample of the batch on its own.

    f is called with t of shape (B,) in the dtype of y, with y of shape (B, ...) and with args whose rows follow the
    batch; samples that are done leave it, so B shrinks. An answer never depends on the neighbours in the batch.

    t0, t1: one time or one per sample; t1 < t0 integrates backwards.
    times: where else the state is wanted: one increasing sequence from t0 to t1 (decreasing where t1 < t0), or one per
        sample (batch, times). The answer is `Solution.path`.
    method: one of `METHODS`. Those without an error estimate take steps of size `step`, shortened to end at every one
        of `times` and at t1, and use no tolerance.
    tolerance: one value for rtol and atol, a pair (rtol, atol), or one value per sample; > 0.
    max_steps: attempts per sample, after which its status is MAX_STEPS.
    coupling: "batch" gives the whole batch one step size and one error norm, as torchdiffeq does: a control, in which
        answers do depend on the neighbours and one broken sample breaks all. Needs one t0, t1 and tolerance.
    end: "interpolate" steps past t1 and evaluates the step's quartic there, as torchdiffeq does (f sees t > t1);
        "clip" shortens the last step to end at t1.
    gradient: what backward() differentiates.
        "unrolled": the accepted steps, with their sizes held constant.
        "exact": everything but the decision to accept: the first step, the step sizes, the times given to f, the
            rejected attempts and the interpolation coordinate. Below a tolerance of about 1e-4 the derivatives of the step
            sizes can drown all others, most where f has kinks, while those of the accepted steps alone come close to the
            solution's; a sample whose gradient grows more than 10,000 times from t1 to t0 for that reason gets NaN.
        "torchdiffeq": as unrolled, and the first step size too, which is what backward() through torchdiffeq 0.2.5
            differentiates.
        "checkpoint": as unrolled, in less memory: of each step only where it began is kept, and the stages are
            computed again.
        "adjoint": the continuous adjoint equation (arXiv 1806.07366), integrated backwards with a tolerance of its
            own. With coupling "sample" each sample's error is the larger of the norms of its state and its adjoint, and
            the gradient is not that of torchdiffeq's odeint_adjoint, which errs otherwise (cosines of .8 to .95 between the
            two at 1e-3); with "batch" it is, with the error over (t, state, adjoint, parameters' adjoint). f must be an
            nn.Module with all its parameters registered, or depend on none that require a gradient. Samples that did
            not succeed get gradient 0; where only the backward integration fails, NaN. Not differentiable again.
    norm: the size of each sample of an error that has been divided by its tolerance.
    log: whether to keep every attempted step in `Solution.log`.

    Trouble with one sample is a status, and the others go on. Raises InvalidInput for wrong use.
    """
    _check(y0, method, step, end, gradient, coupling, max_steps)
    batch = len(y0)
    _check_args(args, batch)
    start, stop, wanted = _times(t0, t1, times, batch, y0.device)
    rtol, atol = tolerances(tolerance, batch, y0.device)
    back = (rtol, atol) if adjoint_tolerance is None else tolerances(adjoint_tolerance, batch, y0.device)
    if not batch:
        return _nothing(y0, wanted, log)
    problem = Problem(f, y0, start, stop, rtol, atol, *back, wanted, tuple(args))
    rows = _at_once(f, y0, stored=torch.is_grad_enabled() and gradient not in RECOMPUTED)
    plan = Plan(METHODS[method], step, max_steps, end == "clip", gradient, norm, log, rows)
    adjoint = gradient == "adjoint" and torch.is_grad_enabled()
    parameters = [p for p in f.parameters() if p.requires_grad] if isinstance(f, nn.Module) else []
    if adjoint:
        check_nothing_hidden(f, start[:1], y0[:1], [arg[:1] for arg in args], parameters)
    if coupling == "batch":
        _check_uniform(problem)
        whole, shared = problem.as_one_sample(), (*parameters, *(arg for arg in args if arg.requires_grad))
        solution = Adjoint(whole, plan, shared, published=True).solve() if adjoint else whole.integrate(plan)
        return _for_each(solution, batch)
    if adjoint:
        return Adjoint(problem, plan, tuple(parameters), published=False).solve()
    parts = problem.parts(-(-batch // shares(f, y0)))
    return _joined(in_threads([partial(part.integrate, plan) for part in parts]))


def _at_once(f: VectorField, y0: State, *, stored: bool) -> int:
    """How many samples to integrate at once.

    On a CPU as many as keep a state within the caches of the cores at work; all where the steps are stored for the backward
    pass, which reads them from memory anyway.
    """
    size = y0[0].numel() * y0.element_size()
    if stored or y0.device.type != "cpu" or not size:
        return len(y0)
    # Shares are of one core each.
    cores = 1 if shares(f, y0) > 1 else torch.get_num_threads()
    return max(PADDED_ROWS, cores * CACHED_BYTES // size)


def _check(y0: Any, method: str, step: float | None, end: str, gradient: str, coupling: str, max_steps: int) -> None:
    for kind, name, known in (
        ("method", method, METHODS),
        ("end", end, ENDS),
        ("gradient mode", gradient, GRADIENTS),
        ("coupling", coupling, COUPLINGS),
    ):
        if name not in known:
            raise unknown(kind, name, known)
    check_step(method, step)
    if max_steps < 1:
        raise InvalidInput(f"max_steps: expected at least 1, got {max_steps}.")
    if not isinstance(y0, Tensor):
        raise InvalidInput(
            f"y0: expected a tensor (batch, ...), got a {type(y0).__name__}. Join the parts of a state into one tensor, and take "
            "them apart in f."
        )
    if y0.ndim < 2 or not y0.is_floating_point():
        raise InvalidInput(f"y0: expected a floating-point state (batch, ...), got {y0.dtype} of {tuple(y0.shape)}.")


def _check_args(args: Sequence[Tensor], batch: int) -> None:
    for arg in (args,) if isinstance(args, Tensor) else args:
        if isinstance(args, Tensor) or not isinstance(arg, Tensor) or not arg.ndim or len(arg) != batch:
            got = f"{tuple(arg.shape)}" if isinstance(arg, Tensor) else type(arg).__name__
            raise InvalidInput(
                f"args: expected a sequence of tensors with one row for each of the {batch} samples, got {got}. What all "
                "samples share belongs into f."
            )


def check_step(method: str, step: float | None) -> None:
    """Raise InvalidInput unless a step size is given exactly to the methods that need one."""
    if METHODS[method].adaptive:
        if step is not None:
            raise InvalidInput(f"step: expected none, since {method} chooses its steps by the tolerance; got {step:g}.")
    elif step is None or not 0 < step < math.inf:
        raise InvalidInput(f"step: expected a positive step size, which {method} needs; got {step}. Try step=0.1.")


def _times(
    t0: float | Tensor, t1: float | Tensor, times: Sequence[float] | Tensor | None, batch: int, device: torch.device
) -> tuple[Times, Times, Tensor]:
    """(start, stop, requested times), one row per sample."""
    start, stop = (_per_sample(name, t, batch, device) for name, t in (("t0", t0), ("t1", t1)))
    if times is None:
        return start, stop, start[:, None][:, :0]
    if isinstance(times, Tensor) and times.requires_grad:
        raise InvalidInput("times: expected times without gradient; times are not differentiated. Detach them.")
    wanted = torch.as_tensor(times, dtype=torch.float64, device=device)
    if wanted.ndim not in (1, 2) or (wanted.ndim == 2 and len(wanted) != batch):
        raise InvalidInput(
            f"times: expected one sequence of times or one per sample ({batch}, any), got {tuple(wanted.shape)}."
        )
    wanted = wanted.expand(batch, -1)
    forwards = torch.where(stop < start, -1.0, 1.0)[:, None]
    steps = torch.cat([start[:, None], wanted, stop[:, None]], 1).diff(dim=1) * forwards
    if not bool((steps >= 0).all()):
        raise InvalidInput("times: expected them in order from t0 to t1, got times outside or out of order. Sort them.")
    return start, stop, wanted


def _per_sample(name: str, t: float | Tensor, batch: int, device: torch.device) -> Times:
    if isinstance(t, Tensor) and t.requires_grad:
        raise InvalidInput(f"{name}: expected a time without gradient; times are not differentiated. Detach it.")
    t = torch.as_tensor(t, dtype=torch.float64, device=device)
    if t.ndim > 1 or (t.ndim == 1 and len(t) not in (1, batch)):
        raise InvalidInput(f"{name}: expected one time or one per sample ({batch}), got shape {tuple(t.shape)}.")
    if not bool(torch.isfinite(t).all()):
        raise InvalidInput(f"{name}: expected a finite time, got {t[~torch.isfinite(t)].reshape(-1)[0].item()}.")
    return t.expand(batch)


def _check_uniform(problem: Problem) -> None:
    tolerances = (problem.rtol, problem.atol, problem.back_rtol, problem.back_atol)
    values = (problem.start, problem.stop, *tolerances, *problem.times.T)
    if any(bool((value != value[0]).any()) for value in values):
        raise InvalidInput(
            "coupling: expected one t0, t1, tolerance and set of times for a batch that shares its steps, got different "
            "ones. Use coupling='sample'."
        )


def _for_each(solution: Solution, batch: int) -> Solution:
    """A solution of the batch as one sample, told for each of its samples."""
    stats, log, path = solution.stats, solution.log, solution.path
    if log is not None:
        log = StepLog(
            torch.arange(batch, device=log.sample.device).repeat_interleave(len(log.sample)),
            **{name: value.repeat(batch) for name, value in vars(log).items() if name != "sample"},
        )
    return Solution(
        solution.y[0],
        solution.status.expand(batch),
        Statistics(*(count.expand(batch) for count in (stats.nfe, stats.accepted, stats.rejected))),
        path[0].transpose(0, 1),
        log,
    )


def _joined(parts: Sequence[Solution]) -> Solution:
    """The solutions of consecutive parts of a batch as one."""
    if len(parts) == 1:
        return parts[0]
    stats = [vars(part.stats) for part in parts]
    logs = [part.log for part in parts if part.log is not None]
    log = None
    if logs:
        first = torch.tensor([0, *(len(part.y) for part in parts[:-1])]).cumsum(0)
        samples = torch.cat([one.sample + offset for one, offset in zip(logs, first, strict=True)])
        log = replace(
            StepLog(**{name: torch.cat([getattr(one, name) for one in logs]) for name in vars(logs[0])}), sample=samples
        )
    return Solution(
        torch.cat([part.y for part in parts]),
        torch.cat([part.status for part in parts]),
        Statistics(**{name: torch.cat([one[name] for one in stats]) for name in stats[0]}),
        torch.cat([part.path for part in parts]),
        log,
    )


def _nothing(y0: State, times: Tensor, log: bool) -> Solution:
    """The solution for no samples."""
    none, moments = y0.new_zeros(0, dtype=torch.int64), y0.new_zeros(0, dtype=torch.float64)
    path = y0.new_zeros(0, times.shape[1], *y0.shape[1:])
    empty = StepLog(none, moments, moments, moments, moments, none.bool()) if log else None
    return Solution(y0, none, Statistics(none, none, none), path, empty)
