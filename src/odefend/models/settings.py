"""How an ODE net is solved: the settings that a view of the net differs in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from odefend.errors import InvalidInput, unknown
from odefend.solver import COUPLINGS, ENDS, GRADIENTS, METHODS, Tolerance, check_step
from odefend.tensors import Index

DECISIVE = ("tolerance", "method", "step", "end", "coupling", "max_steps", "t1")
"""The settings that decide a solution; the others decide how it is differentiated."""


@dataclass(frozen=True, eq=False)
class SolverSettings:
    """Everything that can be changed of a trained ODE net without touching its weights; see `solver.solve`.

    `t1` is the time that the ODE is solved up to, from 0, one for all images or a tensor with one for each; the papers' nets are
    trained with 1.

    `gradient="adjoint"` is torchdiffeq's with `coupling="batch"` only, and `gradient="exact"` is of use down to a tolerance of
    about 1e-4: see `solver.solve`.

    `compiled` runs the vector field through torch.compile, which needs a C++ compiler and pays on some devices only
    (on a CPU it was measured slower).
    """

    tolerance: Tolerance = 1e-3
    method: str = "dopri5"
    step: float | None = None
    gradient: str = "unrolled"
    adjoint_tolerance: Tolerance | None = None
    end: str = "interpolate"
    coupling: str = "sample"
    max_steps: int = 1000
    t1: float | Tensor = 1.0
    compiled: bool = False

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("method", self.method, METHODS),
            ("gradient mode", self.gradient, GRADIENTS),
            ("end", self.end, ENDS),
            ("coupling", self.coupling, COUPLINGS),
        ):
            if name not in known:
                raise unknown(kind, name, known)
        check_step(self.method, self.step)
        if not _positive(self.t1):
            raise InvalidInput(f"t1: expected a positive finite end time, got {self.t1}. The usual one is 1.")
        if self.compiled and self.gradient == "adjoint":
            raise InvalidInput(
                "compiled: expected another gradient mode, since the adjoint differentiates f many times."
            )
        for tolerance in (self.tolerance, self.adjoint_tolerance):
            for value in () if tolerance is None else pair(tolerance):
                if not _positive(value):
                    raise InvalidInput(
                        f"tolerance: expected positive finite numbers, got {tolerance!r}. Try 1e-3, a pair (rtol, atol), or a "
                        "tensor of one for each image."
                    )

    def at(self, **settings: Any) -> "SolverSettings":
        """These settings with some of them changed; another method takes no step size from the old one."""
        if "method" in settings:
            settings.setdefault("step", None)
        return replace(self, **settings)

    def rows(self, index: Index) -> "SolverSettings":
        """The settings for some images of a batch: a tolerance or end time per image is subset; themselves where there is
        neither."""
        back = self.adjoint_tolerance
        numbers = (*pair(self.tolerance), self.t1, *(() if back is None else pair(back)))
        if not any(isinstance(one, Tensor) and one.ndim for one in numbers):
            return self
        rtol, atol, t1, *rest = (
            one[index.to(one.device)] if isinstance(one, Tensor) and one.ndim else one for one in numbers
        )
        return replace(self, tolerance=(rtol, atol), t1=t1, adjoint_tolerance=tuple(rest) or None)


def decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that decide a solution, as JSON can hold them. Raises InvalidInput for one for each image."""
    found = {name: settings[name] for name in DECISIVE if name in settings}
    if "tolerance" in found:
        found["tolerance"] = [_single("tolerance", one) for one in pair(found["tolerance"])]
    if "t1" in found:
        found["t1"] = _single("end time", found["t1"])
    return found


def _single(what: str, value: float | Tensor) -> float:
    if isinstance(value, Tensor) and value.ndim:
        raise InvalidInput(f"net: expected one {what} for all images, got one for each, which no other image has.")
    return float(value)


def _positive(value: float | Tensor) -> bool:
    """Whether it is a number or several in a tensor, all of them positive and finite."""
    if not isinstance(value, Real | Tensor):
        return False
    value = torch.as_tensor(value, dtype=torch.float64)
    return bool(((value > 0) & torch.isfinite(value)).all())


def pair(tolerance: Tolerance) -> tuple[float | Tensor, float | Tensor]:
    """(rtol, atol)."""
    return tolerance if isinstance(tolerance, tuple) else (tolerance, tolerance)
