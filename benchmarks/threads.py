"""What a second thread brings and costs: searches, predictions and steps of training with one thread, with all, and with as many
as `odefend.threads` gives them; on an idle machine, and beside other work on each core. Writes threads-cpu.json and
threads-cpu.md after each row.

It should have the machine to itself. Run it without OMP_NUM_THREADS and MKL_NUM_THREADS, which speak for the user.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import busy_machine, machine
from nets import digits_oon, mnist_oon
from table import described, table

from odefend import PGD, CarliniWagner
from odefend.files import write_json, write_text
from odefend.models import ODENet
from odefend.threads import CORES, SAID
from odefend.training import read_recipe, try_out

HERE = Path(__file__).parent
WAYS = {"one thread": 1, "all threads": CORES, "as odefend chooses": None}

Task = Callable[[], float]
"""Gives the seconds that it took."""


def searched(net: ODENet, images: torch.Tensor, attack: Any) -> float:
    began = time.perf_counter()
    with torch.no_grad():
        labels = net.predict(images).labels
    attack(net, images, labels)
    return time.perf_counter() - began


def predicted(net: ODENet, images: torch.Tensor) -> float:
    began = time.perf_counter()
    with torch.no_grad():
        net.predict(images)
    return time.perf_counter() - began


def learned(recipe: str) -> float:
    return try_out(read_recipe(recipe), 3).seconds


def tasks() -> dict[str, Task]:
    """What is timed, small states first."""
    digits, mnist = digits_oon(), mnist_oon()
    return {
        "the README's search, digits-oon, 16 images": partial(
            searched, digits[0], digits[1][:16], CarliniWagner(steps=30, binary_search_steps=3, initial_constant=1.0)
        ),
        "a step of training digits-oon": partial(learned, "digits-oon"),
        "PGD of 3 steps, mnist-oon, 64 images": partial(searched, mnist[0], mnist[1][:64], PGD(0.1, steps=3)),
        "128 predictions, mnist-oon": partial(predicted, *mnist),
        "a step of training mnist-oon": partial(learned, "mnist-oon"),
        "a step of training forensic": partial(learned, "forensic"),
    }


@contextmanager
def given(threads: int | None) -> Iterator[None]:
    """As if the user had said so; None: as if nothing had been said."""
    if threads:
        os.environ[SAID[0]] = str(threads)
    torch.set_num_threads(threads or CORES)
    try:
        yield
    finally:
        os.environ.pop(SAID[0], None)


def row(name: str, task: Task, loaded: bool, rounds: int) -> dict[str, Any]:
    """Median seconds, and CPU seconds per run, of each way in turn."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with busy_machine() if loaded else nullcontext():
        time.sleep(2)  # so that the load is seen
        for _ in range(rounds):
            for way, threads in WAYS.items():
                with given(threads):
                    began = time.process_time()
                    seconds = task()
                    found[way].append((seconds, time.process_time() - began))
    print(f"{name}{', beside other work' * loaded}", flush=True)
    middle = {way: [statistics.median(column) for column in zip(*runs, strict=True)] for way, runs in found.items()}
    return {"task": name, "loaded": loaded, "seconds": middle}


def page(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    head = ["", *(f"{way}: s" for way in WAYS), *(f"{way}: CPU s" for way in WAYS)]
    lines = ["# Threads", "", "Made by `python benchmarks/threads.py`; medians.", "", described(found["machine"])]
    for loaded, title in ((False, "An idle machine"), (True, "Beside other work on each core")):
        rows = [row for row in found["rows"] if row["loaded"] == loaded]
        body = [
            [row["task"], *(f"{row['seconds'][way][column]:.2f}" for column in (0, 1) for way in WAYS)] for row in rows
        ]
        lines += ["", f"## {title}", "", *table(head, body)]
    return "\n".join(
        [*lines, "", "CPU seconds of a step of training are those of a try-out with all that it loads.", ""]
    )


def main() -> None:
    """Measure, and write after each row what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=None, help="only the first so many")
    parser.add_argument("--out", type=Path, default=HERE / "threads-cpu", help="two files, .json and .md, are written")
    chosen = parser.parse_args()
    if said := [name for name in SAID if name in os.environ]:
        parser.error(f"expected {' and '.join(said)} unset: it says how many threads there are.")
    found: dict[str, Any] = {"machine": machine(), "rows": []}
    for loaded in (False, True):
        for name, task in list(tasks().items())[: chosen.tasks]:
            found["rows"].append(row(name, task, loaded, 1 if loaded else chosen.rounds))
            write_json(chosen.out.with_suffix(".json"), found)
            write_text(chosen.out.with_suffix(".md"), page(found))


if __name__ == "__main__":
    main()
