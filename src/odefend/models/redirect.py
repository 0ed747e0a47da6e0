"""The switches in torchdiffeq that lead its calls elsewhere.

A user's module reaches torchdiffeq by whatever name it imported; what that name calls in the end, the solvers'
`integrate` and the adjoint's autograd function, is replaced once by functions that look at a context variable and
otherwise do what they did. So a module runs unchanged, and other threads and modules are not touched.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from importlib import import_module
from typing import Any

from torch import Tensor

from odefend.errors import InvalidInput
from odefend.models.asked import Asked

CarryOut = Callable[[Asked, Tensor], Tensor]
"""The states at increasing times of what a call asks for, (times, *y0.shape)."""

_active: ContextVar[CarryOut | None] = ContextVar("redirection", default=None)


@contextmanager
def redirected(carry_out: CarryOut) -> Iterator[None]:
    """Within this context torchdiffeq's calls are carried out by `carry_out`."""
    install()
    token = _active.set(carry_out)
    try:
        yield
    finally:
        _active.reset(token)


@cache
def install() -> None:
    """Put the switches into torchdiffeq, once."""
    try:
        entry = import_module("torchdiffeq._impl.odeint")
        adjoint = import_module("torchdiffeq._impl.adjoint")
    except ImportError as error:
        raise InvalidInput(
            "torchdiffeq: expected it to be installed, since the module to be adapted calls it. pip install torchdiffeq"
        ) from error
    if not all(hasattr(solver, "valid_callbacks") for solver in entry.SOLVERS.values()):
        version = getattr(import_module("torchdiffeq"), "__version__", "an older one")
        raise InvalidInput(
            f"torchdiffeq: expected version 0.2.4 or newer, got {version}. pip install --upgrade torchdiffeq"
        )
    vars(entry)["SOLVERS"] = _Solvers(entry.SOLVERS)
    theirs = adjoint.OdeintAdjointMethod.apply

    @wraps(theirs)
    def apply(*args: Any) -> Any:
        return theirs(*args) if _active.get() is None else _integrate_with_adjoint(*args)

    adjoint.OdeintAdjointMethod.apply = staticmethod(apply)


def _carried_out(asked: Asked, t: Tensor) -> Tensor:
    carry_out = _active.get()
    assert carry_out is not None
    return carry_out(asked, t)


class _Solvers(dict[str, Any]):
    """torchdiffeq's solvers by name; within `redirected`, ours in their place."""

    def __getitem__(self, method: str) -> Any:
        return super().__getitem__(method) if _active.get() is None else _Solver(method, super().__getitem__(method))


class _Solver:
    """What torchdiffeq does with a solver class, done elsewhere."""

    def __init__(self, method: str, theirs: Any) -> None:
        self.method, self.valid_callbacks = method, theirs.valid_callbacks

    def __call__(self, func: Any, y0: Tensor, rtol: Any, atol: Any, **options: Any) -> "_Solver":
        self.asked = Asked(func.base_func, y0, self.method, "torchdiffeq", rtol, atol, options)
        return self

    def integrate(self, t: Tensor) -> Tensor:
        return _carried_out(self.asked, t)

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
    options: Mapping[str, Any],
    event_fn: Any,
    adjoint_rtol: Any,
    adjoint_atol: Any,
    adjoint_method: str | None,
    adjoint_options: Mapping[str, Any],
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
    there, back = ({k: v for k, v in one.items() if k != "norm"} for one in (options, adjoint_options))
    if there != back:
        raise InvalidInput(
            f"adjoint_options: expected the options of the forward solve, {there}, got {back}. Remove them."
        )
    tolerances = (adjoint_rtol, adjoint_atol)
    return _carried_out(Asked(func.base_func, y0, method, "adjoint", rtol, atol, options, tolerances, parameters), t)
