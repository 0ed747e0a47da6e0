"""Time and memory of reading a large ledger and of making its tables and figures.

python benchmarks/ledger.py --rows 1000000
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from odefend.evaluation import Ledger, read_evaluation
from odefend.evaluation.schema import TABLES
from odefend.report import evaluation_page, figures, tables
from odefend.report.rows import Rows

TEXT = """
name = "large"
net = "digits-oon"
data = "digits"
images = 10000
tolerances = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
[[trials]]
name = "C&W"
attack = "carlini-wagner"
judged = "everywhere"
"""


def filled(folder: Path, rows: int, shard: int) -> Ledger:
    """A ledger with so many judged rows, drawn at random, in shards of which each is labelled."""
    ledger, generator, made = Ledger(folder), np.random.default_rng(0), 0
    tolerances, labels, count = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), [], 0
    while made < rows:
        key, size = f"{count:020d}", shard
        kind = "clean" if count % 10 == 0 else "adversarial"
        shared = {"net": "digits-oon", "gradient": "unrolled", "method": "dopri5"}
        images = [f"digits/{i:05d}" for i in range(count * 97 % 9000, count * 97 % 9000 + size)]
        if kind == "adversarial":
            ledger.write(
                "crafted",
                f"c{key[1:]}",
                shared | {"image": images, "rtol": 1e-3, "success": [True] * size, "initially_wrong": False, "l2": 1.0},
            )
            labels.append(("crafted", f"c{key[1:]}", "large", "minimum norm", "C&W"))
        scales = (1.0, 1.1, 1.25) if kind == "adversarial" else (1.0,)
        conditions = [(tolerance, scale) for tolerance in tolerances for scale in scales]
        ledger.write(
            "judged",
            key,
            shared
            | {
                "image": images * len(conditions),
                "kind": kind,
                "crafted": f"c{key[1:]}" if kind == "adversarial" else None,
                "attack_success": True if kind == "adversarial" else None,
                "defense": "tolerance",
                "status": 0,
                "draw": 0,
                "rtol": [tolerance for tolerance, _ in conditions for _ in range(size)],
                "scale": [scale for _, scale in conditions for _ in range(size)],
                "correct": (generator.random(size * len(conditions)) < 0.5).tolist(),
                "nfe": generator.integers(20, 200, size * len(conditions)).tolist(),
            },
        )
        experiment = "clean" if kind == "clean" else "recovery"
        labels.append(("judged", key, "large", experiment, None if kind == "clean" else "C&W"))
        made, count = made + size * len(conditions), count + 1
    ledger.label(labels)
    return ledger


def timed(what: str, task: Callable[[], object]) -> object:
    started = time.perf_counter()
    found = task()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {time.perf_counter() - started:.2f} s, at most {most:.2f} GiB so far", flush=True)
    return found


def main() -> None:
    """Fill, pack, read, and make every table and figure that takes judged rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shard", type=int, default=500, help="images per shard")
    parser.add_argument("--folder", type=Path, help="where a filled ledger is, or is to be kept")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = chosen.folder or Path(place)
        ledger = Ledger(folder)
        if not (folder / "judged").exists():
            ledger = filled(folder, chosen.rows, chosen.shard)
            print("filled; run again with --folder for the memory of reading alone", flush=True)
            timed("read, not packed", lambda: ledger.read("judged", "large"))
            timed("pack", ledger.pack)
        evaluation = read_evaluation(TEXT)
        timed("read", lambda: ledger.read("judged", "large"))
        rows = timed("read all tables", lambda: Rows.read(evaluation, ledger))
        assert isinstance(rows, Rows)
        print(f"{rows.judged.height:,} judged rows, {len(TABLES['judged'])} columns", flush=True)
        (trial, at) = rows.everywhere()[0]
        args = (rows.about(trial, at), "digits-oon", evaluation.tolerances)
        timed("a table", lambda: tables.recovery(*args, {}, at, trial.name))
        timed("a figure", lambda: figures.pushed(*args, (1.0, 1.1, 1.25), at))
        timed("another", lambda: figures.work(rows.judged, "digits-oon", evaluation.tolerances))
        timed("the terminal's tables", lambda: evaluation_page.summary(rows))
        counted = "select rtol, avg(cast(correct as float)) from judged group by rtol"
        timed("a query in SQL", lambda: ledger.query(counted))
        assert isinstance(rows.judged, pl.DataFrame)


if __name__ == "__main__":
    main()
