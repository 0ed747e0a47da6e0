"""torchdiffeq's calls, carried out by this solver.

A user's module reaches torchdiffeq by whatever name it imported; what that name calls in the end, the solvers'
`integrate` and the adjoint's autograd function, is replaced once by functions that look at a context variable and
otherwise do what they did. So a module runs unchanged, and other threads and modules are not touched.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache, wraps
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from odefend.errors import InvalidInput
from odefend.models.scalar_time import AtManyTimes, Manner, find_manner, one_by_one, together
from odefend.solver.methods import METHODS
from odefend.solver.solution import Solution
from odefend.solver.solve import solve
from odefend.tensors import State

OWN_METHODS = {name: name for name in ("dopri5", "bosh3", "euler", "midpoint", "rk4")} | {"adaptive_heun": "heun"}
"""torchdiffeq's names of the methods that are here too."""


@dataclass(frozen=True)
class Call:
    """One call of torchdiffeq that was carried out here, and how.

    `shape` is the state's; `times` says how a field written for one time was called at one for each sample;
    `coupling` is "batch" where the state has no row for each image or a row's slope depends on other rows.
    """

    shape: tuple[int, ...]
    method: str
    times: str
    coupling: str
    gradient: str
    solution: Solution


@dataclass
class Redirection:
    """How calls are carried out: with the `chosen` settings for `solve`, the caller's own for the others.

    `batch` is the number of rows that a state with one row per image has; `manners` remembers how a field is called;
    `calls` has the calls so far.
    """

    batch: int
    chosen: dict[str, Any]
    manners: WeakKeyDictionary[nn.Module, dict[Any, Manner | None]]
    calls: list[Call] = field(default_factory=list)


_active: ContextVar[Redirection | None] = ContextVar("redirection", default=None)


@contextmanager
def redirected(redirection: Redirection) -> Iterator[None]:
    """Within this context torchdiffeq's calls are carried out by `solve`."""
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
        entry = import_module("torchdiffeq._impl.odeint")
        adjoint = import_module("torchdiffeq._impl.adjoint")
    except ImportError as error:
        raise InvalidInput(
            "torchdiffeq: expected it to be installed, since the module to be adapted calls it. pip install torchdiffeq"
        ) from error
    vars(entry)["SOLVERS"] = _Solvers(entry.SOLVERS)
    theirs = adjoint.OdeintAdjointMethod.apply

    @wraps(theirs)
    def apply(*args: Any) -> Any:
        return theirs(*args) if _active.get() is None else _integrate_with_adjoint(*args)

    adjoint.OdeintAdjointMethod.apply = staticmethod(apply)


class _Solvers(dict[str, Any]):
    """torchdiffeq's solvers by name; within `redirected`, ours in their place."""

    def __getitem__(self, method: str) -> Any:
        return super().__getitem__(method) if _active.get() is None else _Solver(method, super().__getitem__(method))


class _Solver:
    """What torchdiffeq does with a solver class, done with `solve`."""

    def __init__(self, method: str, theirs: Any) -> None:
        self.method, self.valid_callbacks = method, theirs.valid_callbacks

    def __call__(self, func: Any, y0: Tensor, rtol: Any, atol: Any, **options: Any) -> "_Solver":
        self.problem = _Asked(func.base_func, y0, self.method, "torchdiffeq", rtol, atol, options)
        return self

    def integrate(self, t: Tensor) -> Tensor:
        return _carry_out(self.problem, t)

    def integrate_until_event(self, *_: Any) -> None:
        _refuse_events()


def _refuse_events() -> None:
    raise InvalidInput("event_fn: expected a solve between given times; odefend's solver has no events.")


def _integrate_with_adjoint(
    shapes: Any,  # noqa: ARG001
    func: Any,
    y0: Tensor,
    t: Tensor,
    rtol: Any,
    atol: Any,
    method: str,
    options: dict[str, Any],
    event_fn: Any,
    adjoint_rtol: Any,
    adjoint_atol: Any,
    adjoint_method: str | None,
    adjoint_options: dict[str, Any],
    differentiate_t: bool,  # noqa: ARG001
    *parameters: Tensor,
) -> Tensor:
    """In place of `OdeintAdjointMethod.apply`."""
    if event_fn is not None:
        _refuse_events()
    # torchdiffeq copies the forward method before its default has been filled in.
    if adjoint_method not in (None, method):
        raise InvalidInput(f"adjoint_method: expected the forward method {method}, got {adjoint_method}.")
    if adjoint_options["norm"].__name__ != "default_adjoint_norm":
        raise InvalidInput("adjoint_options: expected torchdiffeq's default norm, got another. Remove it.")
    back = (adjoint_rtol, adjoint_atol)
    return _carry_out(_Asked(func.base_func, y0, method, "adjoint", rtol, atol, options, back, parameters), t)


@dataclass(frozen=True)
class _Asked:
    """What a call asks for, as torchdiffeq has normalized it: tuples are one vector, time increases.

    `f` is called with one time.
    """

    f: Any
    y0: Tensor
    method: str
    gradient: str
    rtol: Any
    atol: Any
    options: dict[str, Any]
    back: tuple[Any, Any] | None = None
    parameters: tuple[Tensor, ...] | None = None

    def settings(self, chosen: dict[str, Any], t: Tensor) -> dict[str, Any]:
        """The settings for `solve`: the chosen ones, else those of the call."""
        others = sorted(set(self.options) - {"norm", "step_size"})
        if others:
            raise InvalidInput(f"options: expected only norm and step_size of torchdiffeq's, got {', '.join(others)}.")
        if t.requires_grad and torch.is_grad_enabled():
            raise InvalidInput("t: expected times without gradient; times are not differentiated here. Detach them.")
        method = chosen.get("method", OWN_METHODS.get(self.method))
        if method is None:
            known = ", ".join(OWN_METHODS)
            raise InvalidInput(f"method: expected one of {known}, got {self.method}. Choose one, .at(method='dopri5').")
        settings = {"method": method, "gradient": self.gradient} | chosen
        if METHODS[method].adaptive:
            settings.setdefault("tolerance", (_number("rtol", self.rtol), _number("atol", self.atol)))
            if self.back and "tolerance" not in chosen:
                settings.setdefault("adjoint_tolerance", tuple(_number("adjoint tolerance", one) for one in self.back))
        else:
            self._check_fixed(method, chosen, t)
            # As torchdiffeq: without a step size, from one requested time to the next.
            step = self.options.get("step_size")
            settings.setdefault("step", float(t[-1] - t[0] if step is None else step))
        return settings

    def _check_fixed(self, method: str, chosen: dict[str, Any], t: Tensor) -> None:
        if "tolerance" in chosen:
            raise InvalidInput(
                f"tolerance: expected none, since the module takes fixed steps ({method}), which no tolerance changes. "
                "Choose an adaptive method as well, .at(1e-3, method='dopri5')."
            )
        step = self.options.get("step_size")
        if step and not torch.allclose(((t - t[0]) / step)[1:-1].round() * step, (t - t[0])[1:-1]):
            raise InvalidInput(
                "t: expected times on the grid of step_size, got others, at which torchdiffeq interpolates linearly."
            )

    @property
    def base(self) -> Any:
        """The field that the user wrote, beneath torchdiffeq's wrappers."""
        f = self.f
        while type(f).__module__.startswith("torchdiffeq."):
            f = f.base_func
        return f


def _number(name: str, value: Any) -> float:
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.ndim:
        raise InvalidInput(f"{name}: expected one number, got one for each element. Choose a tolerance, .at(1e-3).")
    return float(value)


def _carry_out(asked: _Asked, t: Tensor) -> Tensor:
    """The states at the increasing times t, (times, *y0.shape)."""
    redirection = _active.get()
    assert redirection is not None
    y0, norm = asked.y0, asked.options["norm"]
    settings = asked.settings(redirection.chosen, t)
    manner = None
    if settings.get("coupling", "sample") == "sample":
        manner = _manner(redirection, asked, t)
    settings["coupling"] = "sample" if manner else "batch"
    if not manner:
        # The norm is the call's own, which for a tuple is that of its largest part.
        settings["norm"] = lambda error: norm(error.reshape(y0.shape)).double().reshape(1)
    f, state = asked.f, y0
    if y0.ndim < 2:
        f, state = _Reshaped(f, y0.shape), y0.reshape(1, -1)
    f = AtManyTimes(f, manner or together, asked.parameters)
    found = solve(f, state, t[0].item(), t[-1].item(), times=t.detach().double(), **settings)
    # Without the graph, which would live until the next call.
    bare = replace(found, y=found.y.detach(), path=found.path.detach())
    call = Call(
        tuple(y0.shape),
        settings["method"],
        (manner or together).__name__,
        settings["coupling"],
        settings["gradient"],
        bare,
    )
    redirection.calls.append(call)
    return found.path.transpose(0, 1).reshape(len(t), *y0.shape)


class _Reshaped(nn.Module):
    """A field of vectors as one of a batch with one row."""

    def __init__(self, f: Any, shape: torch.Size) -> None:
        super().__init__()
        self.f, self.shape = f, shape

    def forward(self, t: Tensor, y: State) -> State:
        return self.f(t, y.reshape(self.shape)).reshape(y.shape)


def _manner(redirection: Redirection, asked: _Asked, t: Tensor) -> Manner | None:
    """How the field is called at a time for each row; None where it must not be."""
    y0 = asked.y0
    if y0.ndim < 2 or len(y0) != redirection.batch or asked.options["norm"].__name__ != "_rms_norm":
        return None
    base, kind = asked.base, (y0.shape[1:], y0.dtype)
    if isinstance(base, nn.Module):
        # What decides besides the field itself: batch norm couples rows in training, and bfloat16 rounds coarsely.
        kind = (*kind, *(part.training for part in base.modules()), torch.is_autocast_enabled(y0.device.type))
    known = redirection.manners.setdefault(base, {}) if isinstance(base, nn.Module) else {}
    if len(y0) == 1:
        return known.get(kind, one_by_one)
    if kind not in known:
        known[kind] = find_manner(asked.f, y0, t[0].item(), t[-1].item())
    return known[kind]
