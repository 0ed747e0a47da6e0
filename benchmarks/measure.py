"""Time and memory, side by side: warm-up, then repetitions of all contenders in turn, and their medians; on which machine."""

import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Solve = Callable[[Tensor], Tensor]


def forward(solve: Solve, y: Tensor) -> None:
    """One solve without a graph."""
    with torch.no_grad():
        solve(y)


def forward_backward(solve: Solve, y: Tensor, parameters: list[Tensor]) -> None:
    """One solve, and the gradients of its mean square with respect to the state and all parameters."""
    start = y.detach().requires_grad_()
    total = solve(start).square().mean()
    torch.autograd.grad(total, [start, *parameters], allow_unused=True)


def interleaved(tasks: dict[str, Callable[[], None]], seconds: float, most: int) -> dict[str, list[float]]:
    """Milliseconds of each task, all in turn, for about `seconds` but at most `most` rounds; the first round of all
    warms up and is not counted. At least three rounds, unless one takes longer than `seconds`."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    begun = time.perf_counter()
    for task in tasks.values():
        task()
    warm = time.perf_counter() - begun
    rounds = 1 if warm > seconds else max(3, min(most, int(seconds / warm)))
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            found[name].append(1e3 * (time.perf_counter() - started))
    return found


def summary(times: list[float]) -> dict[str, float]:
    """Median, least and most, in ms."""
    return {"median": statistics.median(times), "least": min(times), "most": max(times), "rounds": len(times)}


@contextmanager
def busy_machine() -> Iterator[None]:
    """While it lasts, another process keeps each core busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def peak_memory(arguments: list[str]) -> float:
    """MiB that a run adds to what the process had before it, from a process of its own: `python run.py --peak ...`."""
    done = subprocess.run([sys.executable, sys.argv[0], *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def added_by(task: Callable[[], None]) -> float:
    """MiB by which the largest resident size of this process exceeds that before the task."""
    gc.collect()
    before = _status("VmRSS")
    task()
    return (_status("VmHWM") - before) / 2**10


def _status(name: str) -> int:
    """KiB, from the kernel: unlike getrusage's, not handed down from the parent process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def shares(task: Callable[[], None], most: int = 10) -> list[tuple[str, float, int]]:
    """Where the time goes: (operation, its own share of all, calls), the largest first."""
    task()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        task()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [(event.key, event.self_cpu_time_total / total, event.count) for event in events[:most]]


def machine(*peers: str) -> dict[str, Any]:
    """What it runs on, with the versions of the packages that are compared with odefend."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":")[1].strip() for line in told if "model name" in line]
    flags = next(line for line in told if line.startswith("flags"))
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "amx": "amx_bf16" in flags,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", *peers, "odefend")},
    }
