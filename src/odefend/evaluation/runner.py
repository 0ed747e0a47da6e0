"""Running units of work on a local pool of processes, one thread each, in the order of what they need.

Each worker writes its own shards, so whatever is finished stays when the run is stopped, and a later run skips it.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from odefend.errors import OdefendError, OutputError
from odefend.evaluation.ledger import Ledger
from odefend.evaluation.screen import Screen
from odefend.evaluation.trace import Trace
from odefend.evaluation.units import Craft, Judge
from odefend.files import make_folder

Unit = Craft | Judge | Screen | Trace

_Todo = dict[str, tuple[Unit, float]]

_messages: Any = None


def workers_here() -> int:
    """As many workers as this process may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Runner:
    """Runs units into the ledger at a folder on `workers` processes; with one worker, in this process.

    A context manager: the processes live until it is left, and are ended at once when it is left by an error. One runner at
    a time works on a folder; another raises OutputError.
    """

    def __init__(self, folder: Path, workers: int | None = None) -> None:
        self.ledger, self.workers = Ledger(folder), workers or workers_here()
        self.messages: Any = None
        self.pool: ProcessPoolExecutor | None = None
        self.lock = FileLock(folder / ".lock", timeout=0)  # freed by the system, however the process ends

    def __enter__(self) -> "Runner":
        make_folder(self.ledger.folder)
        try:
            self.lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"{self.ledger.folder}: another run is writing here. Wait for it, or choose another folder."
            ) from error
        if self.workers > 1:
            context = multiprocessing.get_context("spawn")
            self.messages = context.Queue()
            self.pool = ProcessPoolExecutor(self.workers, context, _start_worker, (self.messages, os.getpid()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if self.pool is not None:
            processes = list((self.pool._processes or {}).values())
            self.pool.shutdown(wait=False, cancel_futures=True)
            if kind is not None:
                for process in processes:
                    process.terminate()
        self.lock.release()

    def run(self, units: Iterable[tuple[Unit, float]], tell: Callable[[float], None], evaluation: str = "") -> None:
        """Run the units, each with its expected cost in any unit of time, that are not in the ledger yet, and label all
        of them as parts of `evaluation`.

        `tell` hears how much of the total cost is done. Raises the first error of a unit.
        """
        pairs = list(units)
        self.ledger.label((unit.table, unit.key, evaluation, unit.experiment, unit.trial) for unit, _ in pairs)
        todo = {unit.key: (unit, cost) for unit, cost in pairs if not unit.done(self.ledger)}
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
                unit.run(self.ledger, _Share(lambda share, base=spent, cost=cost: tell(base + share * cost)))
                spent += cost
                tell(spent)
        finally:
            torch.set_num_threads(threads)

    def _pooled(self, todo: _Todo, earlier: float, tell: Callable[[float], None], pool: ProcessPoolExecutor) -> None:
        waiting, shares = _in_order(todo), dict[str, float]()
        running: dict[Future[None], str] = {}
        while waiting or running:
            for unit, _ in _ready(waiting, todo, shares):
                running[pool.submit(_work, unit, self.ledger.folder)] = unit.key
                waiting = [pair for pair in waiting if pair[0].key != unit.key]
            if not running:
                raise ValueError(f"nothing can run: {waiting[0][0]} needs a unit that is neither done nor asked for")
            done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            _hear(self.messages, shares)
            for future in done:
                _check(future)
                shares[running.pop(future)] = 1.0
            tell(earlier + sum(share * todo[key][1] for key, share in shares.items() if key in todo))


class _Share:
    """One unit's progress as a share of its own total, passed on to `tell`."""

    def __init__(self, tell: Any) -> None:
        self.tell, self.total, self.last = tell, 1.0, 0.0

    def stage(self, name: str, total: float) -> None:  # noqa: ARG002
        """A new stage: its total is what counts from now on."""
        self.total = max(total, 1e-9)

    def advance(self, done: float, note: str = "") -> None:  # noqa: ARG002
        """Pass the share on, at most five times a second."""
        if time.monotonic() - self.last > 0.2:
            self.last = time.monotonic()
            self.tell(done / self.total)


def _in_order(todo: _Todo) -> list[tuple[Unit, float]]:
    """The units with everything after what it needs, costly ones first."""
    return sorted(todo.values(), key=lambda pair: (bool(pair[0].needs), -pair[1]))


def _start_worker(messages: Any, parent: int) -> None:
    global _messages
    _messages = messages
    # Ctrl-C reaches the whole group of processes; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    """End this worker when its parent is gone: a killed run must not go on in the dark."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(unit: Unit, folder: Path) -> None:
    unit.run(Ledger(folder), _Share(lambda share: _messages.put((unit.key, share))))


def _ready(waiting: Sequence[tuple[Unit, float]], todo: _Todo, shares: dict[str, float]) -> list[tuple[Unit, float]]:
    return [pair for pair in waiting if all(key not in todo or shares.get(key) == 1.0 for key in pair[0].needs)]


def _hear(messages: Any, shares: dict[str, float]) -> None:
    while True:
        try:
            key, share = messages.get_nowait()
        except queue.Empty:
            return
        if shares.get(key) != 1.0:
            shares[key] = min(share, 0.99)


def _check(future: Future[None]) -> None:
    try:
        future.result()
    except BrokenProcessPool as error:
        raise OdefendError(
            "a worker process ended by itself, perhaps for lack of memory. Run again: what is finished is kept."
        ) from error
