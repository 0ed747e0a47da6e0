"""Running units of work, here or in a pool, in the order of what they need.

Whatever is finished stays when the run is stopped, and a later run skips it.
"""

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from odefend.engine.pool import ProcessPool, Share
from odefend.errors import InvalidInput, Stopped
from odefend.evaluation.cluster import RayPool
from odefend.evaluation.ledger import Ledger
from odefend.evaluation.unit import Unit
from odefend.files import locked, make_folder
from odefend.progress import Pace

_Todo = dict[str, tuple[Unit, float]]

Pool = ProcessPool | RayPool
"""Where units run, `width` at a time: both submit, tell how far they have heard of units, explain errors and close."""


def workers_here() -> int:
    """As many workers as this process may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Runner:
    """Runs units into the ledger at a folder on `workers` processes (with one, in this process), or on the Ray cluster at
    the address `ray`.

    A context manager: the pool lives until it is left, and is ended at once when it is left by an error. One runner at a time
    works on a folder; another raises OutputError. Ctrl-C leaves it as Stopped where something is finished.
    """

    def __init__(self, folder: Path, workers: int | None = None, ray: str | None = None) -> None:
        if workers is not None and ray is not None:
            raise InvalidInput("workers: expected none beside a Ray cluster, which has its own.")
        if workers is not None and workers < 1:
            raise InvalidInput(f"workers: expected at least 1, got {workers}. Leave it out for one per core.")
        self.ledger, self.workers, self.ray = Ledger(folder), workers_here() if workers is None else workers, ray
        self.pool: Pool | None = None
        self.asked: list[Unit] = []
        self.lock = ExitStack()

    def __enter__(self) -> "Runner":
        with ExitStack() as entered:
            entered.enter_context(locked(make_folder(self.ledger.folder) / ".lock", "writing here"))
            if self.ray is not None:
                self.pool = RayPool(self.ray)
            elif self.workers > 1:
                self.pool = ProcessPool(self.workers)
            self.lock = entered.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if self.pool is not None:
                self.pool.close(at_once=kind is not None)
        finally:
            self.lock.close()
        if isinstance(error, KeyboardInterrupt) and any(unit.done(self.ledger) for unit in self.asked):
            raise Stopped from error

    def run(self, units: Iterable[tuple[Unit, float]], tell: Callable[[float], None], evaluation: str = "") -> None:
        """Run the units, each with its expected cost in any unit of time, that are not in the ledger yet, and label all
        of them as parts of `evaluation`.

        `tell` hears how much of the total cost is done: see `Pace`. Raises the first error of a unit.
        """
        pairs = list(units)
        self.ledger.label((unit.table, unit.key, evaluation, unit.experiment, unit.trial) for unit, _ in pairs)
        todo = {unit.key: (unit, cost) for unit, cost in pairs if not unit.done(self.ledger)}
        earlier = sum(cost for _, cost in pairs) - sum(cost for _, cost in todo.values())
        self.asked += (unit for unit, _ in pairs)
        pace = Pace({key: (_kind(unit), cost) for key, (unit, cost) in todo.items()})

        def told() -> None:
            tell(earlier + pace.done())

        told()
        if self.pool is None:
            self._alone(todo, pace, told)
        else:
            self._pooled(todo, pace, told, self.pool)

    def _alone(self, todo: _Todo, pace: Pace, tell: Callable[[], None]) -> None:
        def heard(key: str, share: float) -> None:
            pace.heard({key: share})
            tell()

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker: the number of workers must not change a bit
        try:
            for unit, _ in _in_order(todo):
                began = time.perf_counter()
                unit.run(self.ledger, Share(partial(heard, unit.key)))
                pace.finished(unit.key, time.perf_counter() - began)
                tell()
        finally:
            torch.set_num_threads(threads)

    def _pooled(self, todo: _Todo, pace: Pace, tell: Callable[[], None], pool: Pool) -> None:
        waiting = {unit.key: unit for unit, _ in _in_order(todo)}
        running: dict[Future[float | None], str] = {}
        while waiting or running:
            # Not all at once: what a unit needs is read when it is submitted.
            ready = (
                unit for unit in waiting.values() if all(n not in todo or pace.shares.get(n) == 1.0 for n in unit.needs)
            )
            for unit in list(islice(ready, max(0, 2 * pool.width - len(running)))):
                running[pool.submit(unit, self.ledger)] = unit.key
                del waiting[unit.key]
            done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            pace.heard({key: share for key, share in pool.heard().items() if key in todo})
            for future in done:
                if (error := future.exception()) is not None:
                    told = pool.explained(error)
                    raise told from (error.__cause__ if told is error else error)
                pace.finished(running.pop(future), future.result())
            tell()


def _kind(unit: Unit) -> str:
    """What units that cost alike have in common: everything but the images."""
    return repr(
        [type(unit), *(value for name, value in vars(unit).items() if name not in ("images", "crafted", "key"))]
    )


def _in_order(todo: _Todo) -> list[tuple[Unit, float]]:
    """The units with everything after what it needs, costly ones first."""
    depths = dict[str, int]()

    def depth(key: str) -> int:
        """How many units have to be done one after the other before this one."""
        if key not in todo:
            return -1
        if key not in depths:
            depths[key] = 1 + max(map(depth, todo[key][0].needs), default=-1)
        return depths[key]

    return sorted(todo.values(), key=lambda pair: (depth(pair[0].key), -pair[1]))
