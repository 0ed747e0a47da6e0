"""What a solve gives back."""

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from odefend.tensors import Counts, Mask, State, Times


class Status(IntEnum):
    """How the integration of one sample ended."""

    SUCCESS = 0
    MAX_STEPS = 1
    STEP_UNDERFLOW = 2
    NON_FINITE = 3


@dataclass(frozen=True)
class Statistics:
    """The work done for each sample: evaluations of f, accepted and rejected steps."""

    nfe: Counts
    accepted: Counts
    rejected: Counts


@dataclass(frozen=True)
class StepLog:
    """Every attempted step, one entry each, the attempts of a sample in their order and samples one after the other.

    `sample` is the position in the batch; the step goes from `t` to `t + h` (h < 0 backwards in time); `error` is the
    RMS of the embedded estimate of the local error, in units of the state (NaN for fixed-step methods, which estimate
    nothing), and `ratio` the same over what the tolerance allows, in the solve's norm (for fixed-step methods 0, or
    NaN where the state was not finite); `accepted` says whether the step was taken. Nothing in it carries a gradient.
    """

    sample: Counts
    t: Times
    h: Times
    error: Times
    ratio: Times
    accepted: Mask

    def of(self, sample: int) -> "StepLog":
        """The entries of one sample."""
        return StepLog(**{name: value[self.sample == sample] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Solution:
    """`y` at t1 where `status` is SUCCESS, else the last finite accepted state; `stats` per sample.

    `path` has the state at each requested time, (batch, times, ...), and holds the last finite accepted state at
    times that were not reached. `log` is None unless it was asked for.
    """

    y: State
    status: Counts
    stats: Statistics
    path: Tensor
    log: StepLog | None = None
