"""The loop of attempted steps for devices that should not be waited for after every step.

The same steps as in `integrate`, but samples that are done or in trouble stay in the batch, idle, with a step size of 0,
until the next look: only then the host asks the device who they are. For solves without a graph and without times on
the way.
"""

import torch
from torch import Tensor

from odefend.solver.integrate import Integration, Steps, hopeless
from odefend.solver.rows import Rows
from odefend.solver.solution import Status
from odefend.tensors import Counts, State

UNDER_WAY = -1


class DeferredIntegration(Integration):
    """An `Integration` that looks at the statuses only every `every` steps."""

    def __init__(self, steps: Steps, max_steps: int, at_once: int, every: int) -> None:
        super().__init__(steps, max_steps, at_once)
        self.every = every

    def advance(self, rows: Rows) -> Rows:
        """Up to `every` steps for every sample; then those that are done leave."""
        status, y = torch.full_like(rows.index, UNDER_WAY), rows.y
        for _ in range(self.every):
            rows, status, y = self.step(rows, status, y)
        for outcome in Status:
            self.finish(rows, status == outcome, y, outcome)
        return rows.take(status == UNDER_WAY)

    def step(self, rows: Rows, status: Counts, answer: State) -> tuple[Rows, Counts, State]:
        """One attempt for every sample under way, as new rows, statuses, and the states of those that are done."""
        for outcome, here in hopeless(rows, self.max_steps):
            here = here & (status == UNDER_WAY)
            status, answer = torch.where(here, int(outcome), status), choose(here, rows.y, answer)
        busy = status == UNDER_WAY
        h, end = self.steps.choose(rows)
        h = torch.where(busy, h, 0.0)
        step = self.steps.attempt(rows, h)
        ratio = self.steps.judge(rows, h, step)
        finite = torch.isfinite(ratio)
        accept = busy & finite & (ratio <= 1)
        done = accept & (end >= rows.stop)
        arrived = self.steps.arrived(rows, torch.where(done, h, 1.0), step)
        moved = rows.replace(
            t=torch.where(accept, end, rows.t),
            h=self.steps.resize(torch.where(busy, h, rows.h), ratio),
            y=choose(accept, step.y, rows.y),
            slope=choose(accept, step.stages[-1], rows.slope),
            attempts=rows.attempts + busy,
            accepted=rows.accepted + accept,
            broken=torch.where(busy & ~finite, rows.attempts + 1, rows.broken),
        )
        return moved, torch.where(done, int(Status.SUCCESS), status), choose(done, arrived, answer)


def choose(here: Tensor, one: State, other: State) -> State:
    """The rows of `one` where `here`, else those of `other`."""
    return torch.where(here.view(-1, *[1] * (one.ndim - 1)), one, other)
