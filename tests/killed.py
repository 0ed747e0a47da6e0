"""A run to be killed: `python killed.py FOLDER WORKERS`."""

import sys
from pathlib import Path

import torch

from odefend.attacks import PGD
from odefend.engine import Craft, ModelSpec, Predict, Runner, Slice, Task
from odefend.ledger import Label, Ledger


def run(folder: Path, workers: int) -> Ledger:
    """Six shards attacked, and judged at two tolerances."""
    strict, loose, tasks = ModelSpec("digits-oon", 1e-3), ModelSpec("digits-oon", 1.0), []
    for start in range(0, 24, 4):
        images = Slice("digits", "test", start, start + 4)
        craft = Craft(PGD(0.1, steps=3), strict, images)
        tasks.append(Task(craft, Label("craft", "strict", "PGD")))
        for name, model in (("strict", strict), ("loose", loose)):
            tasks.append(Task(Predict(model, images, craft), Label("judge", name, "PGD")))
    with Runner(folder, workers) as runner:
        runner.run(tasks, lambda _: None, "killed")
    return runner.ledger


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]))
