"""`make bench` and `make bench-quick`: odefend's solver beside torchdiffeq, torchode and the floor, with one thread and with two.

Every row is measured side by side in one run; only ratios within a row mean anything on a shared machine. What has been measured
is written after every row.
"""

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contenders import EVALUATIONS, Contenders
from measure import (
    added_by,
    busy_machine,
    forward,
    forward_backward,
    interleaved,
    machine,
    peak_memory,
    shares,
    summary,
)
from nets import digits_oon, mnist_oon
from table import FLOOR, written

from odefend.files import write_json, write_text
from odefend.solver import solve

HERE = Path(__file__).parent
NETS = {"mnist-oon": mnist_oon, "digits-oon": digits_oon}
TIMED = ("forward", "forward + backward")
THREADS = (1, 2)
PEAKS = ("odefend", "checkpoint", "adjoint", "torchdiffeq", "torchdiffeq_adjoint", "torchode")


@dataclass(frozen=True)
class Row:
    """What is timed; `spread` gives the states amplitudes from 0.1 to 10, `loaded` the machine other work on each core."""

    work: str
    threads: int
    net: str = "mnist-oon"
    batch: int = 128
    tolerance: float = 1e-3
    spread: bool = False
    loaded: bool = False

    @property
    def main(self) -> bool:
        """Whether the performance contract is about it."""
        return self == Row(self.work, self.threads)

    def states(self) -> tuple[Any, torch.Tensor]:
        """The net, and states after its stem."""
        net, images = NETS[self.net]()
        with torch.no_grad():
            y = net.stem(images[: self.batch]).clone()
        return net, y * torch.logspace(-1, 1, self.batch).view(-1, 1, 1, 1) if self.spread else y


def rows(quick: bool) -> Iterator[Row]:
    """All rows of the table, the most wanted first."""
    ways = [(work, threads) for threads in THREADS for work in TIMED]
    yield from (Row(*way) for way in ways)
    if quick:
        return
    yield from (Row(*way, loaded=True) for way in ways)
    yield from (Row(*way, spread=True) for way in ways)
    grid = [(batch, tolerance) for batch in (1, 32, 128) for tolerance in (1e-5, 1e-3, 1e-1, 1.0)]
    yield from (row for way in ways for size in grid if not (row := Row(*way, batch=size[0], tolerance=size[1])).main)
    yield from (Row(*way, net="digits-oon", batch=batch) for way in ways for batch in (1, 32, 128))


def contenders(row: Row, net: Any) -> dict[str, Any]:
    """Who takes part in a row; the slow ones only where the contract asks, or on the small net."""
    ways = Contenders(net, row.tolerance)
    everyone = {
        "odefend": ways.odefend(),
        "torchdiffeq": ways.torchdiffeq(),
        "torchode": ways.torchode(),
        FLOOR: ways.evaluations(),
    }
    if row.work != "forward" and not row.loaded:
        everyone["odefend, checkpoint"] = ways.odefend("checkpoint")
        if row.net == "digits-oon":
            everyone["odefend, exact"] = ways.odefend("exact")
            everyone["odefend, adjoint"] = ways.odefend("adjoint")
            everyone["torchdiffeq, adjoint"] = ways.torchdiffeq_adjoint()
    return everyone


def run_once(work: str, way: Any, y: torch.Tensor, parameters: list[torch.Tensor]) -> None:
    forward(way, y) if work == "forward" else forward_backward(way, y, parameters)


def measured(row: Row, seconds: float) -> dict[str, Any]:
    """One row of the table."""
    torch.set_num_threads(row.threads)
    net, y = row.states()
    with torch.no_grad():
        nfe = solve(net.field, y, tolerance=row.tolerance).stats.nfe.double()
    tasks = {
        who: partial(run_once, row.work, way, y, list(net.field.parameters()))
        for who, way in contenders(row, net).items()
    }
    with busy_machine() if row.loaded else nullcontext():
        found = interleaved(tasks, seconds, 25)
    found[FLOOR] = [ms / EVALUATIONS for ms in found[FLOOR]]
    print(", ".join(f"{name} {value}" for name, value in asdict(row).items() if value is not False), flush=True)
    return asdict(row) | {
        "main": row.main,
        "nfe": nfe.mean().item(),
        "most_nfe": nfe.max().item(),
        "ms": {who: summary(times) for who, times in found.items()},
    }


def profiled(work: str) -> list[tuple[str, float, int]]:
    """Where odefend's time goes, with one thread."""
    torch.set_num_threads(1)
    net, y = Row(work, 1).states()
    return shares(partial(run_once, work, Contenders(net, 1e-3).odefend(), y, list(net.field.parameters())))


def peak(way: str) -> None:
    """Print the MiB that one contender's forward + backward adds to this process."""
    torch.set_num_threads(1)
    net, y = Row(TIMED[1], 1).states()
    ways = Contenders(net, 1e-3)
    chosen = ways.odefend(way) if way in ("checkpoint", "adjoint") else getattr(ways, way)()
    print(added_by(lambda: forward_backward(chosen, y, list(net.field.parameters()))))


def main() -> None:
    """Measure, and write after each row what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", choices=PEAKS, help=peak.__doc__)
    parser.add_argument("--quick", action="store_true", help="only the rows that the contract is about")
    parser.add_argument(
        "--seconds", type=float, default=12.0, help="time for one row; three times that for the main ones"
    )
    parser.add_argument("--out", type=Path, default=HERE / "solver-cpu", help="two files, .json and .md, are written")
    chosen = parser.parse_args()
    if chosen.peak:
        return peak(chosen.peak)
    found: dict[str, Any] = {
        "machine": machine("torchdiffeq", "torchode"),
        "rows": [],
        "memory_mib": {},
        "profiles": {},
    }

    def keep() -> None:
        write_json(chosen.out.with_suffix(".json"), found)
        write_text(chosen.out.with_suffix(".md"), written(found))

    for row in rows(chosen.quick):
        found["rows"].append(measured(row, chosen.seconds * (3 if row.main else 1)))
        keep()
    for way in () if chosen.quick else PEAKS:
        found["memory_mib"][way] = peak_memory(["--peak", way])
        keep()
    for work in () if chosen.quick else TIMED:
        found["profiles"][work] = profiled(work)
        keep()
    print(chosen.out.with_suffix(".md").read_text(encoding="utf-8") if chosen.quick else f"wrote {chosen.out}.md")
    return None


if __name__ == "__main__":
    main()
