"""How many threads torch is given: as many as the work keeps busy and the machine has free, where the user has not said."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

VALUES = 2**13
"""How many values of images keep one thread busy. On two cores with nothing else to do, a second thread made a solve and its
gradient 0.9 times as fast at 1,000 values (16 digits) in a batch, 1.2 times at 8,000 (128 digits), 1.2 to 1.5 times at 12,500 (16
MNIST images) and 1.5 to 1.8 times at 50,000. With other work on them it made all of these 4 to 50 times slower."""

SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def threads_for(values: int) -> Iterator[None]:
    """While it lasts, torch has as many threads as work on so many values of images keeps busy, at most as many as cores are free,
    at least one. What the user has chosen, by a variable of `SAID` or by torch.set_num_threads, stays.

    A number equal to that of the cores cannot be told from torch's own choice: say it by the variable.
    """
    usual = torch.get_num_threads()
    wanted = usual if users_own() else max(1, min(usual - round(_elsewhere.busy()), values // VALUES))
    if wanted == usual:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def users_own() -> bool:
    """Whether the number of threads is another than torch's own choice."""
    return torch.get_num_threads() != CORES or any(name in os.environ for name in SAID)


def _cores() -> int:
    """The cores that this process may run on, which is how many threads torch begins with."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    places = (
        Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in os.sched_getaffinity(0)
    )
    return len({place.read_text(encoding="ascii") if place.exists() else str(place) for place in places})


class _Elsewhere:
    """The cores that other processes keep busy, as the kernel counts them (on Linux; 0 elsewhere)."""

    def __init__(self) -> None:
        self.seen, self.found = self._now(), 0.0

    def busy(self) -> float:
        """Their number on average since a moment a second or more ago."""
        if time.monotonic() - self.seen[0] >= 1:
            now = self._now()
            passed, everyone, own = (after - before for after, before in zip(now, self.seen, strict=True))
            self.found, self.seen = max(0.0, (everyone - own) / passed), now
        return self.found

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """(seconds, seconds of all cores' work, seconds of this process's work)"""
        counts = Path("/proc/stat")
        busy = 0.0
        if counts.exists():
            user, nice, system, _, _, irq, softirq, steal, *_ = (
                counts.read_text(encoding="ascii").split("\n")[0].split()[1:]
            )
            busy = sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy, time.process_time()


CORES = _cores()
_elsewhere = _Elsewhere()
