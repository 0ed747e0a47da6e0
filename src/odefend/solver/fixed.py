"""Steps of one size."""

import torch
from torch import Tensor

from odefend.solver.rows import Rows, all_finite
from odefend.solver.step import Attempt, VectorField, attempt
from odefend.solver.tableau import Tableau
from odefend.tensors import State, Times


class FixedSteps:
    """Steps of a given size, shortened where they would pass the end or a time at which the state is wanted."""

    nfe_first = 0

    def __init__(self, f: VectorField, tableau: Tableau, size: float) -> None:
        self.f, self.tableau, self.size = f, tableau, size
        self.nfe_each = tableau.stages

    def begin(self, rows: Rows) -> Rows:
        """With the step size."""
        return rows.replace(h=torch.full_like(rows.t, self.size))

    def choose(self, rows: Rows) -> tuple[Times, Times]:
        """(size, end) of the next step."""
        end = torch.minimum(rows.stop, rows.wanted)
        left = end - rows.t
        # What rounding leaves of an interval is no step of its own.
        last = left <= rows.h * (1 + 1e-9)
        return torch.where(last, left, rows.h), torch.where(last, end, rows.t + rows.h)

    def attempt(self, rows: Rows, h: Times) -> Attempt:
        """The step from where the samples stand."""
        slope = self.f(rows.t.to(rows.y.dtype), rows.y, *rows.args).to(rows.y.dtype)
        return attempt(self.f, rows.t, h, rows.y, slope, rows.args, self.tableau)

    def judge(self, rows: Rows, h: Times, step: Attempt) -> Times:  # noqa: ARG002
        """0 where the state is finite, NaN where it is not."""
        return torch.where(all_finite(step.y), 0.0, torch.nan).double()

    def error(self, h: Times, step: Attempt) -> Times:  # noqa: ARG002
        """NaN: nothing is estimated."""
        return torch.full_like(h, torch.nan)

    def resize(self, h: Times, ratio: Times) -> Times:
        """The size again; 0, which ends the integration, after a step that was not finite."""
        return torch.where(torch.isfinite(ratio), torch.full_like(h, self.size), 0.0)

    def arrived(self, rows: Rows, h: Times, step: Attempt) -> State:  # noqa: ARG002
        """The states at `rows.stop` of samples whose step reached it."""
        return step.y

    def between(self, rows: Rows, h: Times, step: Attempt, at: Tensor) -> State:  # noqa: ARG002
        """The states at a wanted time, where the steps end."""
        return step.y
