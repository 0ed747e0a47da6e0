"""Running units of work, here or in a pool, in the order of what they need.

Whatever is finished stays when the run is stopped, and a later run skips it.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import torch

from odefend.engine.cluster import RayPool
from odefend.engine.pool import ProcessPool, Share
from odefend.engine.unit import Task, Unit
from odefend.errors import InvalidInput
from odefend.files import locked, make_folder
from odefend.ledger.storage import Ledger

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
    works on a folder; another raises OutputError.
    """

    def __init__(self, folder: Path, workers: int | None = None, ray: str | None = None) -> None:
        if workers is not None and ray is not None:
            raise InvalidInput("workers: expected none beside a Ray cluster, which has its own.")
        if workers is not None and workers < 1:
            raise InvalidInput(f"workers: expected at least 1, got {workers}. Leave it out for one per core.")
        self.ledger, self.workers, self.ray = Ledger(folder), workers_here() if workers is None else workers, ray
        self.pool: Pool | None = None
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

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if self.pool is not None:
                self.pool.close(at_once=kind is not None)
        finally:
            self.lock.close()

    def run(self, tasks: Iterable[Task], tell: Callable[[float], None], experiment: str = "") -> None:
        """Run the units that are not in the ledger yet, and label all of them as parts of `experiment`.

        `tell` hears how much of the total cost is done. Raises the first error of a unit.
        """
        tasks = list(tasks)
        self.ledger.label(experiment, ((task.unit.table, task.unit.key, task.label) for task in tasks))
        units = {task.unit.key: task.unit for task in tasks}
        pairs = [(unit, unit.cost) for unit in units.values()]
        todo = {unit.key: (unit, cost) for unit, cost in pairs if not self.ledger.has(unit.table, unit.key)}
        earlier = sum(cost for _, cost in pairs) - sum(cost for _, cost in todo.values())
        tell(earlier)
        if self.pool is None:
            self._alone(todo, earlier, tell)
        else:
            self._pooled(todo, earlier, tell, self.pool)

    def _alone(self, todo: _Todo, spent: float, tell: Callable[[float], None]) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker: the number of workers must not change a bit
        try:
            for unit, cost in _in_order(todo):
                unit.run(self.ledger, Share(lambda share, base=spent, cost=cost: tell(base + share * cost)))
                spent += cost
                tell(spent)
        finally:
            torch.set_num_threads(threads)

    def _pooled(self, todo: _Todo, earlier: float, tell: Callable[[float], None], pool: Pool) -> None:
        waiting, shares = {unit.key: unit for unit, _ in _in_order(todo)}, dict[str, float]()
        running: dict[Future[None], str] = {}
        while waiting or running:
            # Not all at once: what a unit needs is read when it is submitted.
            ready = (
                unit for unit in waiting.values() if all(n not in todo or shares.get(n) == 1.0 for n in unit.needs)
            )
            for unit in list(islice(ready, max(0, 2 * pool.width - len(running)))):
                running[pool.submit(unit, self.ledger)] = unit.key
                del waiting[unit.key]
            done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            shares |= {key: min(share, 0.99) for key, share in pool.heard().items() if shares.get(key) != 1.0}
            for future in done:
                if (error := future.exception()) is not None:
                    told = pool.explained(error)
                    raise told from (error.__cause__ if told is error else error)
                shares[running.pop(future)] = 1.0
            tell(earlier + sum(share * todo[key][1] for key, share in shares.items() if key in todo))


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
