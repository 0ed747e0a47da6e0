"""A run to be killed: `python killed.py FOLDER WORKERS`."""

import sys
from pathlib import Path

import torch

from odefend.attacks import PGD
from odefend.evaluation import Condition, Craft, Judge, Ledger, Runner, Slice, View


def run(folder: Path, workers: int) -> Ledger:
    """Six shards attacked and judged."""
    view, units = View("digits-oon", 1e-3), []
    for start in range(0, 24, 4):
        images = Slice("digits", "test", start, start + 4)
        craft = Craft("try", PGD(0.1, steps=3), view, images)
        units += [craft, Judge("try", view, images, (Condition(1e-3), Condition(1.0)), craft)]
    with Runner(folder, workers) as runner:
        runner.run([(unit, 1.0) for unit in units], lambda _: None, "killed")
    return runner.ledger


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]))
