"""Shares of a batch in threads of their own, each thread with one core to itself.

Threads that share every operation wait for each other after each, of which a solve has thousands: with other work on the
machine it takes many times as long as with one thread. Shares meet once, at the end.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from odefend.solver.field import PADDED_ROWS
from odefend.solver.solution import Solution
from odefend.solver.step import VectorField
from odefend.tensors import State

SHARE_BYTES = 2**19
"""How large a thread's share of the state is at least; measured with `make bench`."""


def shares(f: VectorField, y0: State) -> int:
    """How many shares to make of a batch: one for each thread where there is enough for it, no graph is recorded, and f says, by an
    attribute `concurrent`, that several threads may call it at once."""
    if torch.is_grad_enabled() or y0.device.type != "cpu" or not getattr(f, "concurrent", False):
        return 1
    enough = min(len(y0) // PADDED_ROWS, y0.numel() * y0.element_size() // SHARE_BYTES)
    return max(1, min(torch.get_num_threads(), enough))


def in_threads(tasks: Sequence[Callable[[], Solution]]) -> list[Solution]:
    """What the tasks give, each in a thread of its own."""
    if len(tasks) == 1:
        return [tasks[0]()]
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    precision = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

    def alone(task: Callable[[], Solution]) -> Solution:
        # What else the caller has set belongs to its thread.
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", *precision):
            return task()

    try:
        with ThreadPoolExecutor(len(tasks), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(alone, tasks))
    finally:
        torch.set_num_threads(threads)  # which new threads begin with
