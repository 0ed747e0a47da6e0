"""How an ODE net is solved: the settings that a view of the net differs in."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from odefend.errors import InvalidInput, unknown
from odefend.solver import ENDS, GRADIENTS, METHODS, Tolerance
from odefend.tensors import Index


@dataclass(frozen=True, eq=False)
class SolverSettings:
    """Everything that can be changed of a trained ODE net without touching its weights; see `solver.solve`."""

    tolerance: Tolerance = 1e-3
    method: str = "dopri5"
    gradient: str = "unrolled"
    end: str = "interpolate"
    max_steps: int = 1000

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("method", self.method, METHODS),
            ("gradient mode", self.gradient, GRADIENTS),
            ("end", self.end, ENDS),
        ):
            if name not in known:
                raise unknown(kind, name, known)
        for value in self.pair:
            value = torch.as_tensor(value, dtype=torch.float64)
            if not bool(((value > 0) & torch.isfinite(value)).all()):
                raise InvalidInput(f"tolerance: expected positive finite numbers, got {self.tolerance}. Try 1e-3.")

    @property
    def pair(self) -> tuple[float | Tensor, float | Tensor]:
        """(rtol, atol)."""
        return self.tolerance if isinstance(self.tolerance, tuple) else (self.tolerance, self.tolerance)

    def rows(self, index: Index) -> "SolverSettings":
        """The settings for some images of a batch; a tolerance per image is subset."""
        rtol, atol = (v[index] if isinstance(v, Tensor) and v.ndim else v for v in self.pair)
        return replace(self, tolerance=(rtol, atol))

    def record(self) -> dict[str, Any]:
        """The settings other than the tolerance, for a ledger row."""
        return {"method": self.method, "gradient": self.gradient, "end": self.end, "max_steps": self.max_steps}
