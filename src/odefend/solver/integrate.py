"""The loop of attempted steps: every sample has its own time, step size, tolerance, status and count of work."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from odefend.solver.adaptive import AdaptiveSteps
from odefend.solver.control import ten_ulp
from odefend.solver.field import PADDED_ROWS
from odefend.solver.fixed import FixedSteps
from odefend.solver.rows import NEVER, Rows, all_finite, same, takes_all
from odefend.solver.solution import Solution, Statistics, Status, StepLog
from odefend.solver.step import Attempt
from odefend.tensors import Counts, Index, Mask, State, Times

Steps = AdaptiveSteps | FixedSteps

Listener = Callable[[Rows, Times, Attempt, Mask], None]
"""Is told of every attempt: the samples before it, the step sizes, what was found, and who accepts."""


def hopeless(rows: Rows, max_steps: int) -> list[tuple[Status, Mask]]:
    """Who has used up the attempts, and whose step is too small: below 10 ulp of the time and of the first step.

    Of the latter those whose latest attempt was not finite, and of the former those that have met infinity or NaN lately:
    just below the largest number, steps succeed and fail by turns.
    """
    spent, since = rows.attempts >= max_steps, rows.attempts - rows.broken
    least = torch.maximum(ten_ulp(rows.t.detach()), rows.least)
    tiny = ~spent & ~(rows.h.detach() >= least)
    non_finite = torch.where(spent, since < 10, tiny & (since == 0))
    return [
        (Status.MAX_STEPS, spent & ~non_finite),
        (Status.STEP_UNDERFLOW, tiny & ~non_finite),
        (Status.NON_FINITE, non_finite),
    ]


class Integration:
    """One solve forwards in time, and what has come out of it so far.

    At most `at_once` samples are under way at once. `store` is False where the backward pass is to compute the stages of a
    step again ("checkpoint").
    """

    def __init__(
        self,
        steps: Steps,
        max_steps: int,
        at_once: int,
        *,
        store: bool = True,
        log: bool = False,
        listener: Listener | None = None,
    ) -> None:
        self.steps, self.max_steps, self.at_once = steps, max_steps, at_once
        self.store, self.listener = store, listener
        self.finished: list[tuple[Rows, State, Status]] = []
        self.visited: list[tuple[Index, Counts, State]] = []
        self.logged: list[tuple[Tensor, ...]] | None = [] if log else None

    def __call__(
        self, y0: State, start: Times, stop: Times, rtol: Times, atol: Times, times: Tensor, args: tuple[Tensor, ...]
    ) -> Solution:
        """From `start` to `stop` >= start, with the state also at the increasing `times` (batch, any) between them."""
        zeros = torch.zeros(len(y0), dtype=torch.int64, device=y0.device)
        index = torch.arange(len(y0), device=y0.device)
        finite = all_finite(y0)
        never, none = torch.full_like(zeros, NEVER), torch.zeros_like(start)
        rows = Rows(index, start, none, stop, rtol, atol, times, zeros, y0, y0, zeros, zeros, never, none, args)
        rows = self.finish(rows, ~finite, y0, Status.NON_FINITE)
        while times.shape[1] and bool((at_start := rows.wanted == rows.t).any()):
            rows = self.visit(rows, at_start, rows.y[at_start])
        rows = self.finish(rows, rows.t == rows.stop, rows.y, Status.SUCCESS)
        parts = rows.parts(self.at_once)
        begun = map(self.begin, parts)  # each when its turn comes, so that it is in the cache
        while len(parts) > 1:
            # Fewer than PADDED_ROWS cost f as much as these: what is left of each goes on with what is left of the others.
            left = [self.run(part, PADDED_ROWS) for part in begun]
            parts = begun = left[0].join(*left[1:]).parts(self.at_once)
        for last in begun:
            self.run(last, 1)
        return self.collect(finite & (start < stop), times)

    def begin(self, rows: Rows) -> Rows:
        """The samples with what their steps begin with; those whose slope is not finite leave."""
        if not len(rows.index):
            return rows
        begun = self.steps.begin(rows)
        broken = ~all_finite(begun.slope)
        if bool(broken.any()):
            rows = self.finish(rows, broken, rows.y, Status.NON_FINITE)
            # As in `advance`: the graph must not hold a broken sample.
            begun = self.steps.begin(rows) if torch.is_grad_enabled() and len(rows.index) else begun.take(~broken)
        return begun.replace(least=ten_ulp(begun.h.detach()))

    def run(self, rows: Rows, few: int) -> Rows:
        """Those of the samples that are still under way when fewer than `few` are."""
        while len(rows.index) >= few:
            rows = self.advance(rows)
        return rows

    def finish(self, rows: Rows, done: Mask, y: State, status: Status) -> Rows:
        """Put the samples that are `done` aside, with their state among `y`; the others remain."""
        if not bool(done.any()):
            return rows
        self.finished.append((rows.take(done), y[done], status))
        return rows.take(~done)

    def visit(self, rows: Rows, here: Mask, y: Tensor) -> Rows:
        """Note the states `y` of the samples that are `here`, at a time where they are wanted."""
        self.visited.append((rows.index[here], rows.due[here], y))
        return rows.replace(due=rows.due + here)

    def drop_hopeless(self, rows: Rows) -> Rows:
        """Finish the samples that have no step left to attempt."""
        outcomes = hopeless(rows, self.max_steps)
        gone = outcomes[0][1] | outcomes[1][1] | outcomes[2][1]
        if not bool(gone.any()):
            return rows
        for status, mask in outcomes:
            self.finish(rows, mask, rows.y, status)
        return rows.take(~gone)

    def advance(self, rows: Rows) -> Rows:
        """Attempt one step for every sample: move those that accept it, finish those that reach their end."""
        rows = self.drop_hopeless(rows)
        if not len(rows.index):
            return rows
        h, end = self.steps.choose(rows)
        step, ratio = self.attempt(rows, h)
        finite = torch.isfinite(ratio)
        if bool(finite.all()):
            return self.move(rows, h, end, step, ratio)
        failed = rows.take(~finite)
        failed = failed.replace(
            h=self.steps.resize(h[~finite], ratio[~finite].detach()),
            attempts=failed.attempts + 1,
            broken=failed.attempts + 1,
        )
        rows, h, end = rows.take(finite), h[finite], end[finite]
        if not len(rows.index):
            return failed
        # 0 * NaN is NaN: a graph that holds a broken sample would spoil its neighbours' gradients.
        if torch.is_grad_enabled():
            step = self.stages(rows, h)
            ratio = self.steps.judge(rows, h, step)
        else:
            step, ratio = step.take(finite.nonzero()[:, 0]), ratio[finite]
        return self.move(rows, h, end, step, ratio).join(failed)

    def attempt(self, rows: Rows, h: Times) -> tuple[Attempt, Times]:
        """(what a step finds, its error over what is tolerated); logged."""
        step = self.stages(rows, h)
        ratio = self.steps.judge(rows, h, step)
        if self.listener:
            self.listener(rows, h, step, ratio <= 1)
        if self.logged is not None:
            entry = (rows.index, rows.t, h, self.steps.error(h, step), ratio, ratio <= 1)
            self.logged.append(tuple(value.detach() for value in entry))
        return step, ratio

    def stages(self, rows: Rows, h: Times) -> Attempt:
        if self.store or not torch.is_grad_enabled():
            return self.steps.attempt(rows, h)
        return checkpoint(self.steps.attempt, rows, h, use_reentrant=False, preserve_rng_state=False)

    def move(self, rows: Rows, h: Times, end: Times, step: Attempt, ratio: Times) -> Rows:
        """Samples that accept the step stand at its end; those that reach t1 with it leave."""
        accept = ratio <= 1
        while rows.times.shape[1] and bool((passed := accept & (rows.wanted <= torch.minimum(end, rows.stop))).any()):
            there, size, found = self.part(passed, rows, h, step)
            rows = self.visit(rows, passed, self.steps.between(there, size, found, there.wanted))
        rows = rows.replace(attempts=rows.attempts + 1, accepted=rows.accepted + accept)
        done = accept & (end >= rows.stop)
        if bool(done.any()):
            there, size, found = self.part(done, rows, h, step)
            self.finished.append((there, self.steps.arrived(there, size, found), Status.SUCCESS))
        y, slope = step.y, step.stages[-1]
        if takes_all(accept):
            y, slope = same(y), same(slope)
        else:
            here = accept.view(-1, *[1] * (y.ndim - 1))
            y, slope = torch.where(here, y, rows.y), torch.where(here, slope, rows.slope)
        rows = rows.replace(
            t=torch.where(accept, end, rows.t),
            h=self.steps.resize(h, ratio),
            y=y,
            slope=slope,
        )
        return rows.take(~done) if bool(done.any()) else rows

    def part(self, chosen: Mask, rows: Rows, h: Times, step: Attempt) -> tuple[Rows, Tensor, Attempt]:
        """The chosen samples before a step, its sizes, and what it found for them."""
        if takes_all(chosen):
            return rows.take(chosen), same(h), step.map(same)
        return rows.take(chosen), h[chosen], step.take(chosen.nonzero()[:, 0])

    def collect(self, started: Mask, times: Tensor) -> Solution:
        """Everything that finished, in the caller's order."""
        order = torch.argsort(torch.cat([rows.index for rows, _, _ in self.finished]))
        attempts = torch.cat([rows.attempts for rows, _, _ in self.finished])[order]
        accepted = torch.cat([rows.accepted for rows, _, _ in self.finished])[order]
        status = torch.cat([torch.full_like(rows.index, status) for rows, _, status in self.finished])[order]
        y = torch.cat([y for _, y, _ in self.finished])[order]
        path = self.path(y, times)
        overflown = (status == Status.SUCCESS) & ~(all_finite(y) & all_finite(path))
        if bool(overflown.any()):
            y, path = self.without(overflown, y, path, order)
            status = torch.where(overflown, int(Status.NON_FINITE), status)
        nfe = self.steps.nfe_first * started + self.steps.nfe_each * attempts
        return Solution(
            y,
            status,
            Statistics(nfe, accepted, attempts - accepted),
            path,
            self.log() if self.logged is not None else None,
        )

    def path(self, y: State, times: Tensor) -> Tensor:
        """The states at the requested times; the last state at those that were not reached."""
        path = y[:, None].expand(-1, times.shape[1], *y.shape[1:])
        if not self.visited:
            return path.clone()
        index, due, states = (torch.cat(parts) for parts in zip(*self.visited, strict=True))
        return path.index_put((index, due), states)

    def without(self, overflown: Mask, y: State, path: Tensor, order: Index) -> tuple[State, Tensor]:
        """Where the samples stood before a step between whose finite ends the interpolant is not."""
        before = torch.cat([rows.y for rows, _, _ in self.finished])[order]
        y = torch.where(overflown.view(-1, *[1] * (y.ndim - 1)), before, y)
        reached = torch.isfinite(path).flatten(2).all(2)
        return y, torch.where(reached.view(*reached.shape, *[1] * (y.ndim - 1)), path, y[:, None])

    def log(self) -> StepLog:
        """The attempts, sample by sample."""
        if not self.logged:
            none = self.finished[0][0].t[:0]
            return StepLog(none.long(), none, none, none, none, none.bool())
        sample, *values = (torch.cat(parts) for parts in zip(*self.logged, strict=True))
        order = torch.argsort(sample, stable=True)
        return StepLog(sample[order], *(value[order] for value in values))
