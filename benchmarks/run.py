"""`make bench`: odefend's solver beside torchdiffeq, torchode and the floor. Writes solver-cpu.json and solver-cpu.md.

Every row is measured side by side in one run; only ratios within a row mean anything on a shared machine.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contenders import Contenders
from measure import added_by, forward, forward_backward, interleaved, machine, peak_memory, shares, summary
from nets import digits_oon, oon_64
from table import written

from odefend.solver import solve

HERE = Path(__file__).parent
NETS = {"digits-oon": digits_oon, "OON, K = 64, 28x28": oon_64}
BATCHES, TOLERANCES = (1, 32, 128), (1e-5, 1e-3, 1e-1, 1.0)
TIMED = ("forward", "forward + backward")


def contenders(work: str, batch: int, tolerance: float, net: Any, *, full: bool) -> dict[str, Any]:
    """Who takes part in a row; the slow ones only where a target asks for them, or on the small net."""
    ways, everyone = Contenders(net, tolerance), {}
    everyone["odefend"] = ways.odefend()
    everyone["torchdiffeq"] = ways.torchdiffeq()
    everyone["torchode"] = ways.torchode()
    everyone["one evaluation of f"] = ways.one_evaluation()
    if work == "forward":
        if batch > 1:
            everyone["torchdiffeq, one by one"] = ways.torchdiffeq_one_by_one()
    else:
        everyone["odefend, checkpoint"] = ways.odefend("checkpoint")
        if full:
            everyone["odefend, exact"] = ways.odefend("exact")
            everyone["odefend, adjoint"] = ways.odefend("adjoint")
            everyone["torchdiffeq, adjoint"] = ways.torchdiffeq_adjoint()
    return everyone


def run_once(work: str, way: Any, y: torch.Tensor, parameters: list[torch.Tensor]) -> None:
    forward(way, y) if work == "forward" else forward_backward(way, y, parameters)


def states(name: str, batch: int, spread: bool = False) -> tuple[Any, torch.Tensor]:
    """A net, and states after its stem; `spread` gives them amplitudes from 0.1 to 10."""
    net, images = NETS[name]()
    net.eval()
    with torch.no_grad():
        y = net.stem(images[:batch]).clone()
    return net, y * torch.logspace(-1, 1, batch).view(-1, 1, 1, 1) if spread else y


def evaluations(net: Any, y: torch.Tensor, tolerance: float) -> torch.Tensor:
    """The NFE of each sample."""
    with torch.no_grad():
        return solve(net.field, y, tolerance=tolerance).stats.nfe


def row(name: str, work: str, batch: int, tolerance: float, seconds: float, spread: bool = False) -> dict[str, Any]:
    """One row of the table."""
    net, y = states(name, batch, spread)
    full = (batch == 128 and tolerance == 1e-3) or name == "digits-oon"
    tasks = {
        who: partial(run_once, work, way, y, list(net.field.parameters()))
        for who, way in contenders(work, batch, tolerance, net, full=full).items()
    }
    nfe = evaluations(net, y, tolerance).double()
    times = {who: summary(found) for who, found in interleaved(tasks, seconds, 15).items()}
    print(f"{name}, {work}, B = {batch}, tolerance {tolerance:g}{', spread' * spread}", flush=True)
    settings = {"net": name, "work": work, "batch": batch, "tolerance": tolerance, "spread": spread}
    return settings | {"precision": "float32", "nfe": nfe.mean().item(), "most_nfe": nfe.max().item(), "ms": times}


def reduced(work: str, seconds: float) -> dict[str, Any]:
    """f in bfloat16 beside float32, with what that changes in the state."""
    name, batch, tolerance = "OON, K = 64, 28x28", 128, 1e-3
    net, y = states(name, batch)
    way, parameters = Contenders(net, tolerance).odefend(), list(net.field.parameters())

    def low() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            run_once(work, way, y, parameters)

    tasks = {"odefend": partial(run_once, work, way, y, parameters), "odefend, f in bfloat16": low}
    times = {who: summary(found) for who, found in interleaved(tasks, seconds, 10).items()}
    with torch.no_grad():
        exact, plain = solve(net.field, y, tolerance=1e-6), solve(net.field, y, tolerance=tolerance)
        with torch.autocast("cpu", torch.bfloat16):
            lower = solve(net.field, y, tolerance=tolerance)
    size = exact.y.norm()
    settings = {"net": name, "work": work, "batch": batch, "tolerance": tolerance, "spread": False}
    return settings | {
        "precision": "bfloat16",
        "nfe": plain.stats.nfe.double().mean().item(),
        "low_nfe": lower.stats.nfe.double().mean().item(),
        "error": ((plain.y - exact.y).norm() / size).item(),
        "low_error": ((lower.y - exact.y).norm() / size).item(),
        "ms": times,
    }


def memory() -> dict[str, float]:
    """MiB that forward + backward adds, each contender in a process of its own."""
    ways = ("odefend", "checkpoint", "adjoint", "torchdiffeq", "torchdiffeq_adjoint", "torchode")
    return {way: peak_memory(["--peak", way]) for way in ways}


def profiles() -> dict[str, list[tuple[str, float, int]]]:
    """Where odefend's time goes."""
    net, y = states("OON, K = 64, 28x28", 128)
    way, parameters = Contenders(net, 1e-3).odefend(), list(net.field.parameters())
    return {work: shares(partial(run_once, work, way, y, parameters)) for work in TIMED}


def peak(way: str) -> None:
    net, y = states("OON, K = 64, 28x28", 128)
    ways = Contenders(net, 1e-3)
    chosen = ways.odefend(way) if way in ("checkpoint", "adjoint") else getattr(ways, way)()
    print(added_by(lambda: forward_backward(chosen, y, list(net.field.parameters()))))


def main() -> None:
    """Measure everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", help="print the MiB that one contender's forward + backward adds, and stop")
    parser.add_argument("--seconds", type=float, default=12.0, help="time for one row (default 12)")
    chosen = parser.parse_args()
    if chosen.peak:
        return peak(chosen.peak)
    wide = "OON, K = 64, 28x28"
    rows = [row(wide, work, 128, 1e-3, 3 * chosen.seconds) for work in TIMED]
    rows += [row(wide, work, 128, 1e-3, chosen.seconds, spread=True) for work in TIMED]
    for name in NETS:
        for work in TIMED:
            for batch in BATCHES:
                for tolerance in TOLERANCES:
                    if (name, batch, tolerance) != (wide, 128, 1e-3):
                        rows.append(row(name, work, batch, tolerance, chosen.seconds))
    rows += [reduced(work, chosen.seconds) for work in TIMED]
    found = {
        "machine": machine("torchdiffeq", "torchode"),
        "rows": rows,
        "memory_mib": memory(),
        "profiles": profiles(),
    }
    (HERE / "solver-cpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (HERE / "solver-cpu.md").write_text(written(found), encoding="utf-8")
    print(f"wrote {HERE / 'solver-cpu.md'}")
    return None


if __name__ == "__main__":
    main()
