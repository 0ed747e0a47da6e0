"""Steps whose size follows the estimated error."""

import torch
from torch import Tensor

from odefend.solver.control import Norm, error_ratio, first_step, next_step, rms, ten_ulp
from odefend.solver.growth import Growth
from odefend.solver.rows import Rows, all_finite
from odefend.solver.step import Attempt, VectorField, attempt, interpolate
from odefend.solver.tableau import Tableau
from odefend.tensors import State, Times


class AdaptiveSteps:
    """Step sizes by the rules of `control`.

    `times_grad` says whether times are differentiated; with `growth`, which watches what comes of it, the judgement of errors
    and the sizes that follow from it are as well.
    """

    def __init__(
        self, f: VectorField, tableau: Tableau, norm: Norm, clip: bool, times_grad: bool, growth: Growth | None
    ) -> None:
        self.f, self.tableau, self.norm, self.clip = f, tableau, norm, clip
        self.times_grad, self.growth, self.control_grad = times_grad, growth, growth is not None
        self.nfe_first, self.nfe_each = 2, tableau.stages - 1

    def begin(self, rows: Rows) -> Rows:
        """With the slope and a first step size."""
        rows = rows.replace(slope=self.f(rows.t.to(rows.y.dtype), rows.y, *rows.args).to(rows.y.dtype))
        with torch.set_grad_enabled(self.times_grad):
            h = self.first_step(rows)
            good = torch.isfinite(h) & (h > 0)
            if not bool(good.all()):
                # As torchdiffeq does with a first step that is not finite (where a slope's norm overflows), and for the
                # others again, since a graph must not hold a broken sample.
                size = 1e-6 * (rows.stop - rows.t)
                well = self.first_step(rows.take(good)) if self.times_grad and bool(good.any()) else h[good]
                h = size.index_copy(0, good.nonzero()[:, 0], well)
            # However far the time is from 0, one step is tried.
            h = torch.maximum(h, ten_ulp(rows.t))
        return rows.replace(h=h)

    def first_step(self, rows: Rows) -> Times:
        """A first step size; not finite where the slope or the one a little further is not."""
        where, tolerance, order = (rows.t, rows.y, rows.slope), (rows.rtol, rows.atol), self.tableau.order
        furthest = rows.stop - rows.t if self.clip else torch.full_like(rows.t, torch.inf)
        return first_step(self.f, *where, *tolerance, rows.args, order, self.norm, furthest)

    def choose(self, rows: Rows) -> tuple[Times, Times]:
        """(size, end) of the next step."""
        with torch.set_grad_enabled(self.times_grad):
            if not self.clip:
                return rows.h, rows.t + rows.h
            left = rows.stop - rows.t
            return torch.minimum(rows.h, left), torch.where(rows.h >= left, rows.stop, rows.t + rows.h)

    def attempt(self, rows: Rows, h: Times) -> Attempt:
        """The step from where the samples stand."""
        if self.growth:
            self.growth.watch(rows.y, rows.index)
        return attempt(self.f, rows.t, h, rows.y, rows.slope, rows.args, self.tableau)

    def judge(self, rows: Rows, h: Times, step: Attempt) -> Times:
        """The estimated error over what is tolerated; NaN where the state is not finite, of which any error is tolerated."""
        with torch.set_grad_enabled(self.control_grad):
            error = step.error(self.tableau)
            ratio = error_ratio(self.norm, error, h, rows.y, step.y, rows.rtol, rows.atol)
            return torch.where(all_finite(step.y), ratio, torch.nan)

    def error(self, h: Times, step: Attempt) -> Times:
        """The RMS of the estimated error."""
        with torch.no_grad():
            return h * rms(step.error(self.tableau))

    def resize(self, h: Times, ratio: Times) -> Times:
        """The size to try next after a step of size h."""
        with torch.set_grad_enabled(self.control_grad):
            return next_step(h, ratio, self.tableau.order)

    def arrived(self, rows: Rows, h: Times, step: Attempt) -> State:
        """The states at `rows.stop` of samples whose step reached it."""
        return step.y if self.clip else self.between(rows, h, step, rows.stop)

    def between(self, rows: Rows, h: Times, step: Attempt, at: Tensor) -> State:
        """The states at times within the step."""
        with torch.set_grad_enabled(self.times_grad):
            x = (at - rows.t) / h
        return interpolate(step, rows.y, h, x, self.tableau)
