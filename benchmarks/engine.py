"""What the engine costs beside a plain loop, and what a second worker brings. Writes engine-cpu.json and engine-cpu.md.

python benchmarks/engine.py [--images 96] [--rounds 3]

Three contenders do the same work, C&W and then judging at four tolerances, in turn: a loop that calls attack and net, the
runner in one process, and the runner on two processes of one thread each, whose start is counted apart.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import machine
from table import described, table

from odefend.attacks import CarliniWagner
from odefend.data import DATASETS
from odefend.engine import Craft, ModelSpec, Predict, Runner, Slice, Task
from odefend.ledger import Label
from odefend.models import load

ATTACK = CarliniWagner(steps=40, binary_search_steps=3, initial_constant=1.0)
GRID = (1e-4, 1e-3, 1e-2, 1e-1)
SHARD = 16
MOST_OVERHEAD, MOST_OF_ONE = 1.05, 0.6
"""The targets: of one worker beside the loop, and of two workers beside one."""
HERE = Path(__file__).parent


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


def tasks(images: int) -> list[Task]:
    found = list[Task]()
    for start in range(0, images, SHARD):
        some = Slice("digits", "test", start, start + SHARD)
        craft = Craft(ATTACK, ModelSpec("digits-oon", 1e-3), some)
        judges = (Predict(ModelSpec("digits-oon", tolerance), some, craft) for tolerance in GRID)
        found += [Task(unit, Label("bench", "net")) for unit in (craft, *judges)]
    return found


def engine(images: int, workers: int) -> float:
    """Seconds of the runner, its processes being there and warm."""
    with tempfile.TemporaryDirectory() as folder, Runner(Path(folder), workers) as runner:
        warm = Slice("digits", "test", 480, 482)
        quick = [
            Craft(CarliniWagner(steps=2 + n, binary_search_steps=1), ModelSpec("digits-oon", 1e-3), warm)
            for n in range(8)
        ]
        runner.run([Task(unit, Label("warm", "net")) for unit in quick], lambda _: None)
        began = time.perf_counter()
        runner.run(tasks(images), lambda _: None)
        return time.perf_counter() - began


def written(found: dict[str, Any]) -> str:
    """The measurements as Markdown; docs/scale.md shows the last two paragraphs."""
    loop, one, two = found["seconds"].values()
    body = []
    for name, seconds, above, target in (
        ("a plain loop", loop, None, ""),
        ("the engine, one worker", one, loop, f"< {MOST_OVERHEAD:g}"),
        ("the engine, two workers", two, one, f"<= {MOST_OF_ONE:g}"),
    ):
        middle, span = statistics.median(seconds), f"{min(seconds):.1f} to {max(seconds):.1f}"
        body.append((name, f"{middle:.1f}", span, f"{middle / statistics.median(above):.2f}" if above else "", target))
    work = f"C&W and judging, {found['images']} images"
    head = (work, f"seconds, median of {found['rounds']}", "from to", "of the row above", "target")
    lines = [
        "# The engine beside a plain loop",
        "",
        "Made by `python benchmarks/engine.py`; see README.md here.",
        "",
        described(found["machine"]),
        "",
        f"Load, as the kernel averages it over a minute: {found['load'][0]:.1f} before, up to {max(found['load'][1:]):.1f} after a "
        "run. The run itself makes 1 of that, with two workers 2; other work takes cores from the second worker first.",
        "",
        *table(head, body),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure in turn and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": machine(), "load": [os.getloadavg()[0]], **vars(given)}
    contenders = {
        "plain loop": lambda: plain(given.images),
        "one worker": lambda: engine(given.images, 1),
        "two workers": lambda: engine(given.images, 2),
    }
    found["seconds"] = {name: list[float]() for name in contenders}
    for _ in range(given.rounds):
        for name, run in contenders.items():
            found["seconds"][name].append(run())
            found["load"].append(os.getloadavg()[0])
            print(f"{name}: {found['seconds'][name][-1]:.1f} s", flush=True)
    (HERE / "engine-cpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (HERE / "engine-cpu.md").write_text(written(found), encoding="utf-8")
    print(f"wrote {HERE / 'engine-cpu.md'}")


if __name__ == "__main__":
    main()
