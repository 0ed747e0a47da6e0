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

from odefend.experiments import Cell, Column, DataPart, Experiment, FigurePart, Line, ModelPart, TablePart
from odefend.ledger import Label, Ledger
from odefend.ledger.schema import TABLES
from odefend.metrics import Rows
from odefend.report.drawn import figure
from odefend.report.filled import table

TOLERANCES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
BACK = Cell(metric="recovered", attack="C&W", measure="recovered")
EXPERIMENT = Experiment(
    name="large",
    data={"test": DataPart(set="digits")},
    models={"net": ModelPart(net="digits-oon", tolerance=TOLERANCES)},
    tables=(
        TablePart(
            title="Recovered",
            rows=("tolerance",),
            where=BACK,
            columns=tuple(Column(head=f"s = {one:g}", scale=one) for one in (1.0, 1.1, 1.25)),
        ),
    ),
    figures=(
        FigurePart(title="s-curve", x="scale", where=BACK, lines=tuple(Line(tolerance=one) for one in TOLERANCES)),
        FigurePart(title="work", lines=(Line(metric="NFE", measure="clean"),)),
    ),
)


def filled(folder: Path, rows: int, shard: int) -> Ledger:
    """A ledger with so many judged rows, drawn at random, in shards of which each is labelled."""
    ledger, generator, made = Ledger(folder), np.random.default_rng(0), 0
    labels, count = [], 0
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
            labels.append(("crafted", f"c{key[1:]}", Label("craft", "net", "C&W")))
        scales = (1.0, 1.1, 1.25) if kind == "adversarial" else (1.0,)
        conditions = [(tolerance, scale) for tolerance in TOLERANCES for scale in scales]
        ledger.write(
            "judged",
            key,
            shared
            | {
                "image": images * len(conditions),
                "kind": kind,
                "crafted": f"c{key[1:]}" if kind == "adversarial" else None,
                "attack_success": True if kind == "adversarial" else None,
                "status": 0,
                "draw": 0,
                "rtol": [tolerance for tolerance, _ in conditions for _ in range(size)],
                "scale": [scale for _, scale in conditions for _ in range(size)],
                "correct": (generator.random(size * len(conditions)) < 0.5).tolist(),
                "nfe": generator.integers(20, 200, size * len(conditions)).tolist(),
            },
        )
        clean = kind == "clean"
        labels.append(("judged", key, Label("clean", "net") if clean else Label("recovered", "net", "C&W")))
        made, count = made + size * len(conditions), count + 1
    ledger.label("large", labels)
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
        timed("read", lambda: ledger.read("judged", "large"))
        rows = timed("read all tables", lambda: Rows.read(ledger, "large"))
        assert isinstance(rows, Rows)
        print(f"{rows.judged.height:,} judged rows, {len(TABLES['judged'])} columns", flush=True)
        timed("a table", lambda: table(EXPERIMENT.tables[0], rows, EXPERIMENT))
        timed("a figure", lambda: figure(EXPERIMENT.figures[0], rows))
        timed("another", lambda: figure(EXPERIMENT.figures[1], rows))
        counted = "select rtol, avg(cast(correct as float)) from judged group by rtol"
        timed("a query in SQL", lambda: ledger.query(counted))
        assert isinstance(rows.judged, pl.DataFrame)


if __name__ == "__main__":
    main()
