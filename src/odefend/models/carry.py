"""Calls of torchdiffeq carried out by this solver, each image with its own steps wherever that can be."""

from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from odefend.errors import InvalidInput
from odefend.models.asked import Asked
from odefend.models.rowwise import Rowwise, one_row, row_for_each
from odefend.models.scalar_time import AtManyTimes, Manner, find_manner, one_by_one, together
from odefend.solver import Solution, VectorField, effort, solve, step_errors
from odefend.tensors import PerImage, State


@dataclass(frozen=True)
class Call:
    """One call of torchdiffeq that was carried out here, and how.

    `shape` is the state's, of a tuple's parts as one vector; `times` says how a field written for one time was called at one
    for each sample; `coupling` is "batch" where that was chosen, so that all images share their steps.
    """

    shape: tuple[int, ...]
    method: str
    times: str
    coupling: str
    gradient: str
    solution: Solution


@dataclass(frozen=True)
class Carried:
    """A call as it was carried out: dy/dt = f(t, y) from `state`, between `start` and `stop`, with these settings for `solve`."""

    call: Call
    f: VectorField
    state: State
    start: float
    stop: float | Tensor
    settings: dict[str, Any]

    @property
    def bare(self) -> Call:
        """The call without the graph, which would live until the next one."""
        found = self.call.solution
        return replace(self.call, solution=replace(found, y=found.y.detach(), path=found.path.detach()))

    def step_errors(self) -> Tensor:
        """What the accepted steps estimated of their errors: see `solver.step_errors`."""
        log = self.call.solution.log
        assert log is not None
        return step_errors(self.f, self.state, log, self.call.method)

    def effort(self, grid: int) -> PerImage:
        """How many steps each image asks for: see `solver.effort`."""
        how = {name: self.settings[name] for name in ("method", "tolerance")}
        return effort(self.f, self.state, self.start, self.stop, grid=grid, **how)


@dataclass
class Redirection:
    """How the calls of one pass through a module are carried out: with the `chosen` settings for `solve`, the caller's own for
    the others.

    `batch` is the number of images; `manners` remembers how a field is called; `log` keeps every step; `carried` has the calls
    so far.
    """

    batch: int
    chosen: dict[str, Any]
    manners: WeakKeyDictionary[nn.Module, dict[Any, Manner | None]]
    log: bool = False
    carried: list[Carried] = field(default_factory=list)

    def __call__(self, asked: Asked, t: Tensor) -> Tensor:
        """The states at the increasing times t, (times, *y0.shape)."""
        asked.check(t)
        stop, times = self._ends(asked, t, self.chosen.get("t1"))
        chosen = {name: value for name, value in self.chosen.items() if name != "t1"}
        settings = asked.settings(chosen, times if times.ndim == 1 else times.amax(0))
        if settings.get("coupling", "sample") == "batch":
            self._check_shared()
            rowwise, manner = one_row(asked), None
            settings["norm"] = rowwise.norm
        else:
            rowwise, manner = self._rowwise(asked, t)
            settings |= {"coupling": "sample", "norm": rowwise.norm}
        f = AtManyTimes(rowwise.f, manner or together, asked.parameters)
        found = solve(f, rowwise.state, t[0].item(), stop, times=times, log=self.log, **settings)
        how = (manner or together).__name__, settings["coupling"], settings["gradient"]
        call = Call(tuple(asked.y0.shape), settings["method"], *how, found)
        self.carried.append(Carried(call, f, rowwise.state, t[0].item(), stop, settings))
        return rowwise.given_back(found.path.transpose(0, 1))

    def _rowwise(self, asked: Asked, t: Tensor) -> tuple[Rowwise, Manner]:
        """The state with a row for each image, and how the field is called on them. Raises InvalidInput where images depend on each
        other."""
        number = len(self.carried) + 1
        rowwise = row_for_each(asked, self.batch)
        if rowwise is None:
            shapes = " and ".join(str(tuple(shape)) for shape in asked.shapes or [asked.y0.shape])
            raise _coupled(
                number, "has a norm of its own" if asked.own_norm else f"has a state of shape {shapes}", self.batch
            )
        manner = self._manner(asked, rowwise, t)
        if manner is None:
            raise _coupled(number, "has a field that gives a row another slope among others than alone", self.batch)
        return rowwise, manner

    def _manner(self, asked: Asked, rowwise: Rowwise, t: Tensor) -> Manner | None:
        """How the field is called at a time for each row; None where it must not be."""
        written, state = asked.written, rowwise.state
        kind = (tuple(shape[1:] for shape in asked.shapes or [asked.y0.shape]), asked.sign, state.dtype)
        if isinstance(written, nn.Module):
            # What decides besides the field itself: batch norm couples rows in training, and bfloat16 rounds coarsely.
            kind = (*kind, *(part.training for part in written.modules()), torch.is_autocast_enabled(state.device.type))
        known = self.manners.setdefault(written, {}) if isinstance(written, nn.Module) else {}
        if len(state) == 1:
            return known.get(kind, one_by_one)
        if kind not in known:
            known[kind] = find_manner(rowwise.f, state, t[0].item(), t[-1].item())
        return known[kind]

    def _ends(self, asked: Asked, t: Tensor, end: float | Tensor | None) -> tuple[float | Tensor, Tensor]:
        """(the last time, all times), the last of them replaced by a chosen `end`, one or one for each image."""
        times = t.detach().double()
        if end is None:
            return t[-1].item(), times
        if asked.sign < 0 or len(t) < 2:
            raise InvalidInput(
                "t1: expected a module that solves forwards in time, got one that does not. Leave t1 alone."
            )
        first = self.carried[0].start if self.carried else t[0].item()
        end = torch.as_tensor(end, dtype=torch.float64, device=t.device)
        if t[0].item() != first or not bool((end > times[-2]).all()):
            raise InvalidInput(
                f"t1: expected a module whose solves all begin at one time and ask for no other states after t1, got one that "
                f"begins at {t[0].item():g} and asks for one at {times[-2].item():g}."
            )
        if not end.ndim:
            return end.item(), torch.cat([times[:-1], end[None]])
        return end, torch.cat([times[:-1].expand(len(end), -1), end[:, None]], 1)

    def _check_shared(self) -> None:
        """Raise InvalidInput where images that share their steps have settings of their own."""
        for name in ("tolerance", "adjoint_tolerance", "t1"):
            value = self.chosen.get(name)
            parts = value if isinstance(value, tuple) else (value,)
            if any(isinstance(part, Tensor) and part.numel() > 1 for part in parts):
                raise InvalidInput(
                    f"{name}: expected one for all images, since coupling='batch' was chosen and they share their steps, got one "
                    "for each. Predict one image at a time."
                )


def _coupled(number: int, why: str, batch: int) -> InvalidInput:
    return InvalidInput(
        f"module: expected solves in which images do not depend on each other, got one, its number {number}, that {why}, for "
        f"{batch} images. Either mend that (batch norm needs running statistics and eval(), a state one row for each image), or "
        "choose coupling='batch', .at(coupling='batch'): then all images share their steps and one tolerance, as in "
        "torchdiffeq, and an answer depends on its neighbours."
    )
