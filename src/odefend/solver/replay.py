"""The accepted steps of a solve that is over, taken again so that what they estimated can be differentiated."""

import torch
from torch import Tensor

from odefend.solver.control import rms
from odefend.solver.field import PADDED_ROWS, padded
from odefend.solver.methods import METHODS
from odefend.solver.solution import StepLog
from odefend.solver.step import VectorField, attempt
from odefend.tensors import Counts, State


def accepted_steps(log: StepLog, batch: int) -> tuple[Counts, Tensor, Tensor, Tensor]:
    """(how many each of `batch` samples took, and t, h and error of each, (batch, most)), 0 after a sample's last; one column of
    zeros where none took any."""
    sample, kept = log.sample[log.accepted], {name: getattr(log, name)[log.accepted] for name in ("t", "h", "error")}
    count = torch.bincount(sample, minlength=batch)
    first = count.cumsum(0) - count
    place = torch.arange(len(sample), device=sample.device) - first[sample]  # entries of a sample follow each other
    most = max(1, int(count.max())) if batch else 1
    tables = [
        value.new_zeros(batch, most).index_put((sample, place), value)
        for value in (kept["t"], kept["h"], kept["error"])
    ]
    return count, tables[0], tables[1], tables[2]


def step_errors(f: VectorField, y0: State, log: StepLog, method: str) -> Tensor:
    """The RMS of the embedded estimate of the error of each accepted step, (batch, most steps), 0 after a sample's last.

    f and y0 as for `solve`, `log` of an adaptive `method` of one. The values are those of `log.error` to rounding;
    differentiable in y0, with times and step sizes held constant.
    """
    tableau, (count, t, h, _) = METHODS[method], accepted_steps(log, len(y0))
    f = padded(f, min(len(y0), PADDED_ROWS))
    rows = torch.arange(len(y0), device=y0.device)
    y, slope, columns = y0, f(t[:, 0].to(y0.dtype), y0), []
    for step in range(t.shape[1]):
        going = (count[rows] > step).nonzero()[:, 0]
        if not len(going):  # no sample took any step
            columns.append(h.new_zeros(len(y0)))
            break
        rows, y, slope = rows[going], y[going], slope[going]
        done = attempt(f, t[rows, step], h[rows, step], y, slope, (), tableau)
        error = h[rows, step] * rms(done.error(tableau)).double()
        columns.append(error.new_zeros(len(y0)).index_put((rows,), error))
        y, slope = done.y, done.stages[-1]
    return torch.stack(columns, 1)
