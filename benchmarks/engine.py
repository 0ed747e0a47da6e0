"""What the evaluation engine costs beside a plain loop, and what a second worker brings.

python benchmarks/engine.py [--images 96] [--rounds 3]

Three contenders do the same work, C&W and then judging at four tolerances, in turn: a loop that calls attack and net, the
runner in one process, and the runner on two processes of one thread each, whose start is counted apart.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from odefend.attacks import CarliniWagner
from odefend.data import DATASETS
from odefend.evaluation import Condition, Craft, Judge, Runner, Slice, View
from odefend.evaluation.unit import Unit
from odefend.models import load

ATTACK = CarliniWagner(steps=40, binary_search_steps=3, initial_constant=1.0)
GRID = (1e-4, 1e-3, 1e-2, 1e-1)
SHARD = 16


def plain(images: int) -> float:
    """Seconds of a loop over the same batches, which keeps nothing."""
    net, data = load("digits-oon").at(1e-3), DATASETS["digits"]("test")[:images]
    began = time.perf_counter()
    for start in range(0, images, SHARD):
        some = data[start : start + SHARD]
        found = ATTACK(net, some.images, some.labels, ids=some.ids)
        net.at(torch.tensor(GRID).repeat_interleave(len(some)).double()).predict(
            found.images.repeat(len(GRID), 1, 1, 1)
        )
    return time.perf_counter() - began


def units(images: int) -> list[tuple[Unit, float]]:
    found = list[tuple[Unit, float]]()
    for start in range(0, images, SHARD):
        craft = Craft("bench", ATTACK, View("digits-oon", 1e-3), Slice("digits", "test", start, start + SHARD))
        judge = Judge("bench", craft.view, craft.images, tuple(Condition(tolerance) for tolerance in GRID), craft)
        found += [(craft, 120.0), (judge, 4.0)]
    return found


def engine(images: int, workers: int) -> float:
    """Seconds of the runner, its processes being there and warm."""
    with tempfile.TemporaryDirectory() as folder, Runner(Path(folder), workers) as runner:
        warm = Slice("digits", "test", 480, 482)
        quick = [
            Craft("warm", CarliniWagner(steps=2 + n, binary_search_steps=1), View("digits-oon", 1e-3), warm)
            for n in range(8)
        ]
        runner.run([(unit, 1.0) for unit in quick], lambda _: None)
        began = time.perf_counter()
        runner.run(units(images), lambda _: None)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    contenders = {
        "plain loop": lambda: plain(given.images),
        "one worker": lambda: engine(given.images, 1),
        "two workers": lambda: engine(given.images, 2),
    }
    seconds = {name: list[float]() for name in contenders}
    for _ in range(given.rounds):
        for name, run in contenders.items():
            seconds[name].append(run())
            print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    loop, one, two = (statistics.median(times) for times in seconds.values())
    print(f"overhead of the engine: {100 * (one / loop - 1):+.1f} % (target: below 5 %)")
    print(f"two workers take {two / one:.2f} of one (target: 0.6)")


if __name__ == "__main__":
    main()
