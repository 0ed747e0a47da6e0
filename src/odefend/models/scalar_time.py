"""Vector fields written for one time, called with a time for every sample."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from odefend.tensors import State

ScalarTimeField = Callable[[Tensor, Tensor], Tensor]
"""f(t, y) -> dy/dt with one time t of shape () for a whole batch y (B, ...)."""


def together(f: ScalarTimeField, t: Tensor, y: State) -> State:
    """All samples at their common time."""
    return f(t[0], y)


def broadcast(f: ScalarTimeField, t: Tensor, y: State) -> State:
    """One call with times of shape (B,)."""
    return f(t, y)


def broadcast_column(f: ScalarTimeField, t: Tensor, y: State) -> State:
    """One call with times of shape (B, 1, ..., 1), one axis for each of the state's."""
    return f(t.view(-1, *[1] * (y.ndim - 1)), y)


def vmap(f: ScalarTimeField, t: Tensor, y: State) -> State:
    """One call through torch.func.vmap."""
    return torch.func.vmap(lambda one, row: f(one, row[None])[0])(t, y)


def one_by_one(f: ScalarTimeField, t: Tensor, y: State) -> State:
    """One call for each sample."""
    return torch.cat([f(t[i], y[i : i + 1]) for i in range(len(y))])


Manner = Callable[[ScalarTimeField, Tensor, Tensor], Tensor]

FAST = (broadcast, broadcast_column, vmap)


def find_manner(f: ScalarTimeField, y: State, start: float, stop: float) -> Manner | None:
    """The fastest way of calling f on samples at different times that gives what f gives for each sample alone; None
    where f gives another answer in a batch than alone even at one time, so that no way can be right.

    Tries f on the first samples of y, with noise. That a call goes through proves nothing: times of shape (B,) broadcast along a
    state's last axis when that happens to be B long.
    """
    y = y[:3].float() if torch.is_autocast_enabled(y.device.type) else y[:3]
    with torch.no_grad(), warnings.catch_warnings(), _exactly(y):
        warnings.simplefilter("ignore")  # vmap says where it is slow
        # With noise: on states that are all alike, such as zeros, a wrong way would pass for a right one.
        noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        y = y + noise.to(y) * y.abs().max().clamp_min(1)
        t = torch.linspace(start, stop, len(y) + 2, dtype=y.dtype, device=y.device)[1:-1]
        try:
            alone, common = one_by_one(f, t, y), one_by_one(f, t[:1].expand(len(y)), y)
        except Exception:  # a field that only knows batches
            return None
        if not _agree(f(t[0], y), common):
            return None
        for manner in FAST:
            try:
                found = manner(f, t, y)
            except Exception:  # whatever a user's field raises, this way is none
                continue
            if _agree(found, alone):
                return manner
    return one_by_one


@contextmanager
def _exactly(y: Tensor) -> Iterator[None]:
    """Without what rounds coarsely, so that another way of calling does not look like another answer."""
    cudnn = torch.backends.cudnn
    flags = cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )
    with torch.autocast(y.device.type, enabled=False), flags:
        yield


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    close = min(1e3 * torch.finfo(one.dtype).eps, 0.05) * other.abs().max()
    return bool(((one - other).abs() <= close).all())


class AtManyTimes(nn.Module):
    """f(t, y) with t of shape (B,), from a field for one time and the manner of calling it.

    `shared` are the tensors that the adjoint method differentiates with respect to; default: the field's parameters.
    """

    def __init__(self, f: ScalarTimeField, manner: Manner, shared: tuple[Tensor, ...] | None = None) -> None:
        super().__init__()
        self.f, self.manner, self.shared = f, manner, shared

    def forward(self, t: Tensor, y: State) -> State:
        """dy/dt at times t of shape (B,)."""
        return self.f(t[0], y) if len(y) == 1 else self.manner(self.f, t, y)

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        """What the adjoint method differentiates with respect to."""
        return super().parameters(recurse) if self.shared is None else iter(self.shared)
