"""The samples still under way."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from odefend.tensors import Counts, Index, Mask, State, Times


def takes_all(chosen: Mask) -> bool:
    """Whether a choice of samples need not be carried out because it takes all.

    Never where a graph is recorded: the order in which gradients are summed up, and with it their last bits, would
    depend on what the neighbours do.
    """
    return not torch.is_grad_enabled() and bool(chosen.all())


def all_finite(values: Tensor) -> Mask:
    """Whether all of a sample's values are finite."""
    flat = values.detach().flatten(1)
    if flat.device.type == "cpu":
        # Thirty times faster than to look at each value. Only a sum of finite values may overflow as well.
        well = torch.isfinite(flat.sum(1))
        if bool(well.all()):
            return well
    return torch.isfinite(flat).all(1)


NEVER = -(10**6)


@dataclass(frozen=True)
class Rows:
    """Where each sample under way stands, and its position `index` in the caller's batch."""

    index: Index
    t: Times
    h: Times
    stop: Times
    rtol: Times
    atol: Times
    times: Tensor  # (batch, times): where its state is wanted, in order
    due: Counts  # how many of them have been reached
    y: State
    slope: State  # f at (t, y), for methods that keep it from step to step
    attempts: Counts
    accepted: Counts
    broken: Counts  # after how many attempts the latest one was that was not finite; NEVER where all were
    least: Times  # the smallest step worth a try, whatever the time
    args: tuple[Tensor, ...]

    def take(self, chosen: Mask) -> "Rows":
        """The chosen samples."""
        if takes_all(chosen):
            return self
        rows = chosen.nonzero()[:, 0]
        own = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "args"}
        return Rows(**own, args=tuple(arg[rows] for arg in self.args))

    def join(self, other: "Rows") -> "Rows":
        """These samples and those."""
        own = {
            field.name: torch.cat([getattr(self, field.name), getattr(other, field.name)])
            for field in fields(self)
            if field.name != "args"
        }
        return Rows(**own, args=tuple(torch.cat(pair) for pair in zip(self.args, other.args, strict=True)))

    def replace(self, **changes: Tensor) -> "Rows":
        """The same samples with some of their values changed."""
        return Rows(**{**vars(self), **changes})

    @property
    def wanted(self) -> Times:
        """The next time at which the state is wanted; infinite where none is left."""
        last = torch.full_like(self.t, torch.inf)[:, None]
        return torch.cat([self.times, last], 1).gather(1, self.due[:, None])[:, 0]
