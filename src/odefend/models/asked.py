"""What a call of torchdiffeq asks for, said as `solver.solve` wants to hear it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odefend.errors import InvalidInput
from odefend.models.scalar_time import ScalarTimeField
from odefend.solver.methods import METHODS

OWN_METHODS = {name: name for name in ("dopri5", "bosh3", "tsit5", "euler", "midpoint", "rk4")} | {
    "adaptive_heun": "heun"
}
"""torchdiffeq's names of the methods that are here too. Of bosh3 the interpolated ends are others here, and of tsit5 the states:
torchdiffeq steps on with the embedded weights, of order 4, in place of those of order 5."""

UNBOUNDED = 2**31 - 1
"""torchdiffeq's own bound on the number of steps, where none is given."""

CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


@dataclass(frozen=True)
class Asked:
    """A call as torchdiffeq has normalized it: a state that is a tuple is one vector, and time increases.

    `f`: the field as torchdiffeq has wrapped it, called with one time. `back` and `parameters` are those of the adjoint.
    """

    f: Any
    y0: Tensor
    method: str
    gradient: str
    rtol: Any
    atol: Any
    options: Mapping[str, Any]
    back: tuple[Any, Any] | None = None
    parameters: tuple[Tensor, ...] | None = None

    @property
    def wrappers(self) -> list[Any]:
        """The field within its wrappers, from the outermost one to the field that the user wrote."""
        found = [self.f]
        while type(found[-1]).__module__.startswith("torchdiffeq."):
            found.append(found[-1].base_func)
        return found

    @property
    def written(self) -> ScalarTimeField:
        """The field that the user wrote."""
        return self.wrappers[-1]

    @property
    def sign(self) -> float:
        """-1 where the times were given in decreasing order, so that torchdiffeq integrates in -t; else 1."""
        return next((one.mul for one in self.wrappers if type(one).__name__ == "_ReverseFunc"), 1.0)

    @property
    def shapes(self) -> list[torch.Size] | None:
        """Of the parts of a state that is a tuple; None for one that is a tensor."""
        return next((one.shapes for one in self.wrappers if type(one).__name__ == "_TupleFunc"), None)

    @property
    def own_norm(self) -> bool:
        """Whether the call has a norm of its own in place of torchdiffeq's usual one."""
        norm = self.options["norm"]
        if self.shapes is not None:  # torchdiffeq has wrapped the norm of the parts
            norm = next(cell.cell_contents for cell in norm.__closure__ if callable(cell.cell_contents))
        return norm.__name__ not in ("_rms_norm", "_mixed_norm")

    def settings(self, chosen: dict[str, Any], t: Tensor) -> dict[str, Any]:
        """The settings for `solve` between the times t: the chosen ones, else those of the call."""
        method = chosen.get("method", OWN_METHODS.get(self.method))
        if method is None:
            known = ", ".join(OWN_METHODS)
            raise InvalidInput(f"method: expected one of {known}, got {self.method}. Choose one, .at(method='dopri5').")
        # torchdiffeq counts from one requested time to the next.
        most = min(self.options.get("max_num_steps", UNBOUNDED) * max(1, len(t) - 1), UNBOUNDED)
        settings = {"method": method, "gradient": self.gradient, "max_steps": most} | chosen
        if METHODS[method].adaptive:
            settings.setdefault("tolerance", (_number("rtol", self.rtol), _number("atol", self.atol)))
            if self.back and "tolerance" not in chosen:
                settings.setdefault("adjoint_tolerance", tuple(_number("adjoint tolerance", one) for one in self.back))
        else:
            self._check_fixed(method, chosen, t)
            # As torchdiffeq: without a step size, from one requested time to the next. Any will do for no way at all.
            step = self.options.get("step_size")
            settings.setdefault("step", float(t[-1] - t[0]) or 1.0 if step is None else float(step))
        return settings

    def check(self, t: Tensor) -> None:
        """Raise InvalidInput for what is not to be had here, asked of a solve at the times t."""
        others = sorted(set(self.options) - {"norm", "step_size", "max_num_steps"})
        if others:
            raise InvalidInput(
                "options: expected only norm, step_size and max_num_steps of torchdiffeq's, got "
                f"{', '.join(others)}. Leave it out, as odefend's solver has none."
            )
        names = (*CALLBACKS, *(f"{name}_adjoint" for name in CALLBACKS if self.gradient == "adjoint"))
        if called := [name for name in names if hasattr(self.written, name)]:
            raise InvalidInput(
                f"{called[0]}: expected a field without callbacks, which odefend's solver does not call, got a "
                f"{type(self.written).__name__} with {', '.join(called)}. Remove or rename it if its answers do not need it."
            )
        if t.requires_grad and torch.is_grad_enabled():
            raise InvalidInput("t: expected times without gradient; times are not differentiated here. Detach them.")

    def _check_fixed(self, method: str, chosen: Mapping[str, Any], t: Tensor) -> None:
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


def _number(name: str, value: Any) -> float:
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.ndim:
        raise InvalidInput(f"{name}: expected one number, got one for each element. Choose a tolerance, .at(1e-3).")
    return float(value)
