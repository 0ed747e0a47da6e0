"""An initial value problem for a batch, and how to integrate it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from odefend.solver.adaptive import AdaptiveSteps
from odefend.solver.control import Norm
from odefend.solver.deferred import DeferredIntegration
from odefend.solver.field import PADDED_ROWS, padded
from odefend.solver.fixed import FixedSteps
from odefend.solver.growth import Growth
from odefend.solver.integrate import Integration, Listener
from odefend.solver.solution import Solution
from odefend.solver.step import VectorField
from odefend.solver.tableau import Tableau
from odefend.tensors import State, Times

LOOK_EVERY = {"cuda": 4}
"""After how many steps the host asks a device of this type which samples are done; after each on other devices."""

SAMPLED = ("start", "stop", "rtol", "atol", "back_rtol", "back_atol", "times")
"""What a problem says of each sample besides its state and args."""


@dataclass(frozen=True)
class Plan:
    """How to integrate; see `solve`. `step` is the size of a fixed-step method's steps, `at_once` how many samples to integrate
    at once."""

    tableau: Tableau
    step: float | None
    max_steps: int
    clip: bool
    gradient: str
    norm: Norm
    log: bool
    at_once: int


@dataclass(frozen=True)
class Problem:
    """dy/dt = f(t, y, *args) from `start` to `stop`, the state wanted at `times` (batch, any) as well."""

    f: VectorField
    y0: State
    start: Times
    stop: Times
    rtol: Times
    atol: Times
    back_rtol: Times  # of the adjoint equation
    back_atol: Times
    times: Tensor
    args: tuple[Tensor, ...]

    def as_one_sample(self) -> "Problem":
        """The same with the whole batch as one sample, so that it shares steps and error norm."""
        f, args, batch = self.f, self.args, len(self.y0)

        def whole(t: Tensor, y: State) -> State:
            return f(t.expand(batch), y[0], *args)[None]

        first = slice(0, 1)
        return Problem(whole, self.y0[None], args=(), **{name: getattr(self, name)[first] for name in SAMPLED})

    def parts(self, rows: int) -> list["Problem"]:
        """The same in parts of about equal size with at most `rows` samples."""
        count = -(-len(self.y0) // rows)
        if count == 1:
            return [self]
        cut = {name: getattr(self, name).tensor_split(count) for name in ("y0", *SAMPLED)}
        args = [arg.tensor_split(count) for arg in self.args]
        return [
            Problem(self.f, args=tuple(arg[k] for arg in args), **{name: pieces[k] for name, pieces in cut.items()})
            for k in range(count)
        ]

    def integrate(self, plan: Plan, listener: Listener | None = None) -> Solution:
        """The solution. A problem that runs backwards in time is integrated forwards in -t."""
        backwards = self.stop < self.start
        if not bool(backwards.any()):
            return self._forwards(plan, listener)
        sign = 1 - 2 * backwards.double()

        def reversed_field(s: Tensor, y: State, sign: Times, *args: Tensor) -> State:
            sign = sign.to(y.dtype)
            return sign.view(-1, *[1] * (y.ndim - 1)) * self.f(sign * s, y, *args)

        solution = replace(
            self,
            f=reversed_field,
            start=sign * self.start,
            stop=sign * self.stop,
            times=sign[:, None] * self.times,
            args=(sign, *self.args),
        )._forwards(plan, listener)
        log = solution.log
        if log is not None:
            log = replace(log, t=sign[log.sample] * log.t, h=sign[log.sample] * log.h)
        return replace(solution, log=log)

    def _forwards(self, plan: Plan, listener: Listener | None) -> Solution:
        f = padded(self.f, min(len(self.y0), PADDED_ROWS))
        differentiable, mode = torch.is_grad_enabled(), plan.gradient
        growth = Growth(self.rtol) if differentiable and mode == "exact" else None
        if plan.tableau.adaptive:
            timed = differentiable and mode in ("exact", "torchdiffeq")
            steps = AdaptiveSteps(f, plan.tableau, plan.norm, plan.clip, timed, growth)
        else:
            steps = FixedSteps(f, plan.tableau, plan.step or 0.0)
        every = LOOK_EVERY.get(self.y0.device.type, 1)
        if every > 1 and not (differentiable or plan.log or listener or self.times.shape[1]):
            run = DeferredIntegration(steps, plan.max_steps, plan.at_once, every)
        else:
            store = mode != "checkpoint"
            run = Integration(steps, plan.max_steps, plan.at_once, store=store, log=plan.log, listener=listener)
        # What is the caller's is not watched, but a view of it.
        y0 = self.y0.view_as(self.y0) if growth else self.y0
        solution = run(y0, self.start, self.stop, self.rtol, self.atol, self.times, self.args)
        if growth:
            growth.come_from(solution.y)
            growth.come_from(solution.path)
        return solution
