"""torchdiffeq's calls, carried out by this solver.

A user's module reaches torchdiffeq by whatever name it imported; what that name calls in the end, the solvers'
`integrate` and the adjoint's autograd function, is replaced once by functions that look at a context variable and
otherwise do what they did. So a module runs unchanged, and other threads and modules are not touched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from odefend.errors import InvalidInput, OdefendError
from odefend.solver.methods import METHODS
from odefend.solver.scalar_time import AtManyTimes, Manner, find_manner, together
from odefend.solver.solution import Solution
from odefend.solver.solve import solve

OWN_METHODS = {
    "Dopri5Solver": "dopri5",
    "Bosh3Solver": "bosh3",
    "AdaptiveHeunSolver": "heun",
    "Euler": "euler",
    "Midpoint": "midpoint",
    "RK4": "rk4",
}
"""torchdiffeq's solver classes, by the method of ours that does the same."""


@dataclass(frozen=True)
class Call:
    """One call of torchdiffeq that was carried out here: for which state, and how.

    `times` says how a field written for one time was called with one for each sample; `coupling` is "batch" where the
    state has no row for each image, or a row's slope depends on the other rows.
    """

    shape: tuple[int, ...]
    method: str
    times: str
    coupling: str
    solution: Solution


@dataclass
class Redirection:
    """How calls are carried out: `chosen` settings for `solve`, the caller's own for the others; and the calls so far.

    `batch` is the number of rows that a state with one row per sample has.
    """

    batch: int
    chosen: dict[str, Any]
    manners: WeakKeyDictionary = field(default_factory=WeakKeyDictionary)
    calls: list[Call] = field(default_factory=list)


_active: ContextVar[Redirection | None] = ContextVar("redirection", default=None)


@contextmanager
def redirected(redirection: Redirection) -> Iterator[None]:
    """Within this context torchdiffeq's calls are carried out by `solve`; they are noted in `redirection.calls`."""
    _install()
    token = _active.set(redirection)
    try:
        yield
    finally:
        _active.reset(token)


@cache
def _install() -> None:
    """Put the switches into torchdiffeq, once."""
    try:
        from torchdiffeq._impl import adjoint, solvers
    except ImportError as error:
        raise InvalidInput(
            "torchdiffeq: expected it to be installed, since the module to be adapted calls it. pip install torchdiffeq"
        ) from error
    adaptive, fixed = solvers.AdaptiveStepsizeODESolver, solvers.FixedGridODESolver
    adaptive.integrate = _switch(adaptive.integrate, _integrate)
    fixed.integrate = _switch(fixed.integrate, _integrate)
    for base in (solvers.AdaptiveStepsizeEventODESolver, fixed):
        base.integrate_until_event = _switch(base.integrate_until_event, _refuse_events)
    method = adjoint.OdeintAdjointMethod
    method.apply = staticmethod(_switch(method.apply, _integrate_with_adjoint))


def _switch(theirs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(theirs)
    def either(*args: Any, **kwargs: Any) -> Any:
        redirection = _active.get()
        return theirs(*args, **kwargs) if redirection is None else ours(redirection, *args, **kwargs)

    return either


def _refuse_events(*_: Any, **__: Any) -> None:
    raise InvalidInput("event_fn: expected a solve between given times; odefend's solver has no events.")


def _integrate(redirection: Redirection, solver: Any, t: Tensor) -> Tensor:
    """In place of `solver.integrate(t)`: the states at all of t, (times, *y0.shape)."""
    odd = [name for name in ("step_t", "jump_t", "first_step") if getattr(solver, name, None) is not None]
    odd += ["min_step"] * (getattr(solver, "min_step", 0) > 0)
    odd += ["max_step"] * (getattr(solver, "max_step", math.inf) < math.inf)
    odd += ["grid_constructor"] * (getattr(solver, "grid_constructor", _none).__name__ not in GRIDS)
    own = {
        "method": OWN_METHODS.get(type(solver).__name__),
        "step": getattr(solver, "step_size", None),
        "tolerance": (getattr(solver, "rtol", None), getattr(solver, "atol", None)),
        "gradient": "torchdiffeq",
    }
    norm = getattr(solver, "norm", None)
    return _carry_out(redirection, solver.func, solver.y0, t, own, odd, norm, None)


def _integrate_with_adjoint(
    redirection: Redirection,
    shapes: Any,
    func: nn.Module,
    y0: Tensor,
    t: Tensor,
    rtol: Any,
    atol: Any,
    method: str,
    options: dict[str, Any],
    event_fn: Any,
    adjoint_rtol: Any,
    adjoint_atol: Any,
    adjoint_method: str,
    adjoint_options: dict[str, Any],
    _: bool,
    *parameters: Tensor,
) -> Tensor:
    """In place of `OdeintAdjointMethod.apply`."""
    if event_fn is not None:
        _refuse_events()
    odd = [f"options[{name!r}]" for name in options if name not in ("norm", "step_size")]
    odd += ["adjoint_method"] * (adjoint_method != method)
    odd += ["adjoint_options['norm']"] * (adjoint_options["norm"].__name__ != "default_adjoint_norm")
    names = {"adaptive_heun": "heun"}
    own = {
        "method": method if method in METHODS and method != "heun" else names.get(method),
        "step": options.get("step_size"),
        "tolerance": (rtol, atol),
        "adjoint_tolerance": (adjoint_rtol, adjoint_atol),
        "gradient": "adjoint",
    }
    return _carry_out(redirection, func, y0, t, own, odd, options["norm"], parameters)


def _carry_out(
    redirection: Redirection,
    func: Any,
    y0: Tensor,
    t: Tensor,
    own: dict[str, Any],
    odd: list[str],
    norm: Callable[[Tensor], Tensor] | None,
    parameters: tuple[Tensor, ...] | None,
) -> Tensor:
    if odd:
        raise InvalidInput(f"{', '.join(odd)}: expected none of torchdiffeq's options that steer steps; remove them.")
    settings = _settings(own, redirection.chosen, t)
    f = func.base_func  # without torchdiffeq's conversion of t, which expects one time
    manner = _manner(redirection, f, y0, t, norm) if settings.get("coupling", "sample") == "sample" else None
    settings["coupling"] = "batch" if manner is None else "sample"
    if manner is None and norm is not None:
        own_norm = norm
        settings["norm"] = lambda error: own_norm(error.reshape(y0.shape)).double().reshape(1)
    state = y0 if y0.ndim > 1 else y0[None]
    field = AtManyTimes(_reshaped(f, y0), manner or together, parameters)
    solution = solve(field, state, t[0].item(), t[-1].item(), times=t.detach().double(), **settings)
    redirection.calls.append(
        Call(tuple(y0.shape), settings["method"], (manner or together).__name__, settings["coupling"], solution)
    )
    return solution.path.transpose(0, 1).reshape(len(t), *y0.shape)


def _settings(own: dict[str, Any], chosen: dict[str, Any], t: Tensor) -> dict[str, Any]:
    """The settings for `solve`: the chosen ones, and the caller's own where nothing was chosen."""
    settings = own | chosen
    if settings["method"] is None:
        raise InvalidInput(f"method: expected one of {', '.join(METHODS)}; the module asks for another. Choose one.")
    if METHODS[settings["method"]].adaptive:
        settings["step"] = None
    elif settings["step"] is None:
        # As torchdiffeq: from one requested time to the next.
        settings["step"] = max((t[-1] - t[0]).abs().item(), 1e-300)
    if "tolerance" in chosen and "adjoint_tolerance" not in chosen:
        settings["adjoint_tolerance"] = None
    for name in ("tolerance", "adjoint_tolerance"):
        pair = settings.get(name)
        if name not in chosen and isinstance(pair, tuple):
            if any(value is None or torch.as_tensor(value).ndim for value in pair):
                pair = (1e-3, 1e-3) if pair == (None, None) else _refuse_tolerances()
            settings[name] = tuple(float(value) for value in pair)
    return settings
