"""The samples still under way."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from odefend.solver.field import PADDED_ROWS
from odefend.tensors import Counts, Index, Mask, State, Times


def takes_all(chosen: Mask) -> bool:
    """Whether a choice of samples takes all, and `same` is as good as carrying it out."""
    return bool(chosen.all())


def same(values: Tensor) -> Tensor:
    """These values; where a graph is recorded through a view, which leaves the order in which gradients are summed up, and with it
    their last bits, as it is where some samples are chosen: it does not depend on what the neighbours do."""
    return values.view_as(values) if torch.is_grad_enabled() else values


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
            return self.map(same)
        rows = chosen.nonzero()[:, 0]
        return self.map(lambda values: values[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Rows":
        """The same with all tensors changed."""
        own = {name: change(value) for name, value in vars(self).items() if name != "args"}
        return Rows(**own, args=tuple(change(arg) for arg in self.args))

    def join(self, *others: "Rows") -> "Rows":
        """These samples and those."""
        everyone = [vars(rows) for rows in (self, *others)]
        own = {name: torch.cat([rows[name] for rows in everyone]) for name in everyone[0] if name != "args"}
        return Rows(
            **own, args=tuple(torch.cat(parts) for parts in zip(*(rows["args"] for rows in everyone), strict=True))
        )

    def parts(self, most: int) -> list["Rows"]:
        """These samples in parts of about equal size, of at most so many each unless that were less than PADDED_ROWS."""
        count = min(-(-len(self.index) // most), len(self.index) // PADDED_ROWS)
        if count <= 1:
            return [self]
        cut = {name: value.tensor_split(count) for name, value in vars(self).items() if name != "args"}
        args = [arg.tensor_split(count) for arg in self.args]
        return [
            Rows(**{name: pieces[k] for name, pieces in cut.items()}, args=tuple(arg[k] for arg in args))
            for k in range(count)
        ]

    def replace(self, **changes: Tensor) -> "Rows":
        """The same samples with some of their values changed."""
        return Rows(**{**vars(self), **changes})

    @property
    def wanted(self) -> Times:
        """The next time at which the state is wanted; infinite where none is left."""
        last = torch.full_like(self.t, torch.inf)[:, None]
        return torch.cat([self.times, last], 1).gather(1, self.due[:, None])[:, 0]
