"""Make the tables of docs/scale.md: what a gradient costs, counted and timed, what the papers' grids then add up to, and what
the engine adds.

python docs/scale.py            write the tables from results/scale and benchmarks/engine-cpu.md
python docs/scale.py --again    first count and time anew, on an idle machine (a minute)
"""

import json
import sys
import time
from pathlib import Path

import torch
from pages import fill
from torch.utils.flop_counter import FlopCounterMode

from odefend.models import MODELS, ODENet

ROOT = Path(__file__).parent.parent
PAGE, MEASURED = ROOT / "docs" / "scale.md", ROOT / "results" / "scale" / "gradients.json"
ENGINE = ROOT / "benchmarks" / "engine-cpu.md"

NETS = {
    "MNIST OON, width 64": ("oon", {"in_channels": 1, "width": 64}, (1, 28, 28)),
    "CIFAR-10 OON, width 256": ("oon", {"in_channels": 3, "width": 256}, (3, 32, 32)),
    "CIFAR-10 MIX, width 256": ("mix", {"in_channels": 3, "width": 256}, (3, 32, 32)),
}
GRIDS = (
    # what, net, gradients as the papers' protocols count them
    ("BIM on MNIST (WIFS 2019, table II)", "MNIST OON, width 64", 6.6e6),
    ("BIM on CIFAR-10 (WIFS 2019, table III)", "CIFAR-10 OON, width 256", 6.6e6),
    ("C&W on MNIST (ICPR-W 2020, table 1)", "MNIST OON, width 64", 15e6),
    ("C&W on CIFAR-10 (ICPR-W 2020, table 1)", "CIFAR-10 OON, width 256", 15e6),
)
"""10,000 images x 10 steps x 6 balls x 11 views; 5,000 images x 500 steps x 6 views."""

BATCH = 16

RATES = (10e12, 50e12)
"""Operations a second that one GPU is assumed to sustain in such convolutions: float32, and bfloat16 with tensor cores."""


def measure() -> dict[str, dict[str, float]]:
    """Operations and seconds of one gradient of one image, on one thread, at 1e-3; untrained nets, random images."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = {}
    for name, (kind, options, shape) in NETS.items():
        net = MODELS[kind](**options).eval().requires_grad_(False)
        assert isinstance(net, ODENet)
        images = torch.rand(BATCH, *shape)

        def gradient(net: ODENet = net, images: torch.Tensor = images) -> None:
            net(images.clone().requires_grad_(True)).square().sum().backward()

        with FlopCounterMode(display=False) as counter:
            gradient()
        times = []
        for _ in range(3):
            started = time.perf_counter()
            gradient()
            times.append(time.perf_counter() - started)
        nfe = net.predict(images).nfe.double().mean().item()
        found[name] = {"operations": counter.get_total_flops() / BATCH, "seconds": min(times) / BATCH, "nfe": nfe}
    return found


def parts() -> dict[str, str]:
    """The page's tables, from what was measured here and by benchmarks/engine.py."""
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    costs = [
        "| net | evaluations of the field | operations per gradient | on one CPU thread | that is |",
        "| --- " * 5 + "|",
    ]
    for name, cost in measured.items():
        rate = cost["operations"] / cost["seconds"]
        costs.append(
            f"| {name} | {cost['nfe']:.0f} | {cost['operations'] / 1e9:.2f} G | {1000 * cost['seconds']:.1f} ms "
            f"| {rate / 1e9:.0f} G/s |"
        )
    grids = [
        "| grid | gradients | operations | 1 CPU thread | "
        + " | ".join(f"{n} GPU{'s' * (n > 1)}" for n in (1, 8, 64))
        + " |",
        "| --- " * 7 + "|",
    ]
    for what, net, count in GRIDS:
        cost = measured[net]
        total = count * cost["operations"]
        spans = [f"{duration(total / RATES[1] / n)} to {duration(total / RATES[0] / n)}" for n in (1, 8, 64)]
        thread = duration(count * cost["seconds"])
        grids.append(f"| {what} | {count / 1e6:.1f} M | {total:.1e} | {thread} | " + " | ".join(spans) + " |")
    engine = ENGINE.read_text(encoding="utf-8").strip().split("\n\n")[-2:]  # how busy the machine was, and the table
    return {"costs": "\n".join(costs), "grids": "\n".join(grids), "engine": "\n\n".join(engine)}


def duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def main() -> None:
    if "--again" in sys.argv or not MEASURED.exists():
        MEASURED.parent.mkdir(parents=True, exist_ok=True)
        MEASURED.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    fill(PAGE, parts())


if __name__ == "__main__":
    main()
