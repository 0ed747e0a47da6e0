"""A pool of processes on this machine, one thread each, for the runner."""

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch

from odefend.errors import OdefendError, OdefendWarning
from odefend.named import files_run, run_files

_messages: Any = None


Work = Any
"""What a pool runs: a value with a `key`, and `run`, which writes what it makes into the ledger it is given."""


class Share:
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


class ProcessPool:
    """`width` processes that write into the ledger's folder themselves; they end when this process does."""

    def __init__(self, width: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.width, self.messages = width, context.Queue()
        self.pool = ProcessPoolExecutor(width, context, _start_worker, (self.messages, os.getpid()))

    def submit(self, unit: Work, ledger: Any) -> "Future[float | None]":
        """Run a unit; the future gives how many seconds it took, and raises what the unit raised."""
        try:
            with _deaf():
                # What is of the user's own files can be read there only after these have been run.
                return self.pool.submit(_work, files_run(), pickle.dumps((unit, ledger)))
        except BrokenProcessPool as error:
            broken: Future[float | None] = Future()
            broken.set_exception(error)
            return broken

    def heard(self) -> dict[str, float]:
        """How far units have come since the last call: shares by key."""
        shares = dict[str, float]()
        while True:
            try:
                key, share = self.messages.get_nowait()
            except queue.Empty:
                return shares
            shares[key] = share

    def explained(self, error: BaseException) -> BaseException:
        """An error of a unit as the user should see it."""
        if isinstance(error, BrokenProcessPool):
            return OdefendError(
                "a worker process ended by itself, perhaps for lack of memory. Run again: what is finished is kept."
            )
        return error

    def close(self, *, at_once: bool) -> None:
        """End the processes, `at_once` or after what they are doing."""
        processes = list((self.pool._processes or {}).values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        if at_once:
            for process in processes:
                process.terminate()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that begin in here never hear of Ctrl-C, not even while they import; this one does afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(messages: Any, parent: int) -> None:
    global _messages
    _messages = messages
    # Ctrl-C reaches the whole group of processes; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore", OdefendWarning)  # the parent has told
    torch.set_num_threads(1)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    """End this worker when its parent is gone: a killed run must not go on in the dark."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(files: tuple[str, ...], pickled: bytes) -> float:
    run_files(files)
    unit, ledger = pickle.loads(pickled)
    began = time.perf_counter()
    unit.run(ledger, Share(lambda share: _messages.put((unit.key, share))))
    return time.perf_counter() - began
