"""`make bench`: odefend's C&W and BIM beside Foolbox's on torchdiffeq. Writes attacks-cpu.json and attacks-cpu.md.

All attack the same weights on the same images with the same settings. Times are of one run each, one after the other, with
odefend's first and last; only ratios mean anything on a shared machine.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from contenders import ConcatField
from measure import machine
from table import described, table
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from odefend import BIM, CarliniWagner, load, mnist
from odefend.models import ODENet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import foolbox

HERE = Path(__file__).parent
NET, TOLERANCE, EPSILON = "mnist-oon", 1e-3, 0.1
SEARCH = CarliniWagner(steps=30, binary_search_steps=3, learning_rate=0.1, initial_constant=10.0)
STEPS = BIM(EPSILON, steps=10, step_size=EPSILON / 5, early_stop=False)


class TorchdiffeqNet(nn.Module):
    """The net as a user of torchdiffeq writes it; counts the images that pass with a graph."""

    def __init__(self, net: ODENet, *, adjoint: bool) -> None:
        super().__init__()
        self.stem, self.field, self.head = net.stem, ConcatField(net), net.head
        self.solve = odeint_adjoint if adjoint else odeint
        self.gradients = 0

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            self.gradients += len(images)
        ends = torch.tensor([0.0, 1.0])
        return self.head(
            self.solve(self.field, self.stem(images), ends, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")[1]
        )


def foolbox_search() -> Any:
    return foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=SEARCH.binary_search_steps,
        steps=SEARCH.steps,
        stepsize=SEARCH.learning_rate,
        initial_const=SEARCH.initial_constant,
        abort_early=SEARCH.abort_early,
    )


def foolbox_steps() -> Any:
    return foolbox.attacks.LinfBasicIterativeAttack(steps=STEPS.steps, abs_stepsize=STEPS.step_size, random_start=False)


@contextmanager
def timed(found: dict[str, Any]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    found["seconds"] = time.perf_counter() - started


def own(net: ODENet, attack: CarliniWagner | BIM, images: Tensor, labels: Tensor) -> dict[str, Any]:
    told: dict[str, Any] = {}
    with timed(told):
        found = attack(net, images, labels)
    return told | {"images": found.images, "gradients": found.gradient_calls.double().mean().item()}


def theirs(
    net: ODENet, attack: Any, epsilon: float | None, images: Tensor, labels: Tensor, *, one_by_one: bool = False
) -> dict[str, Any]:
    """Foolbox on torchdiffeq: batched with backpropagation through the solver, or as published: one image at a time by the
    adjoint."""
    peer = TorchdiffeqNet(net, adjoint=one_by_one).eval()
    model, told, parts = foolbox.PyTorchModel(peer, bounds=(0, 1)), {}, []
    size = 1 if one_by_one else len(images)
    with timed(told):
        for some, label in zip(images.split(size), labels.split(size), strict=True):
            parts.append(attack(model, some, label, epsilons=epsilon)[1])
    found = torch.cat(parts)
    if epsilon is None:  # where it finds none, Foolbox's C&W returns a black image
        found = torch.where((found == 0).flatten(1).all(1).view(-1, 1, 1, 1), images, found)
    return told | {"images": found, "gradients": peer.gradients / len(images)}


@torch.no_grad()
def judged(net: ODENet, found: dict[str, Any], images: Tensor, labels: Tensor) -> dict[str, Any]:
    """With success and L2 by odefend's solver in float32, and success by a solve at 1e-6."""
    made = found.pop("images")
    l2 = (made - images).flatten(1).norm(dim=1)
    fooled = net.predict(made).fooled(labels)
    tight = net.at(1e-6).predict(made).fooled(labels)
    return found | {
        "count": len(images),
        "success": fooled.double().mean().item(),
        "success_tight": tight.double().mean().item(),
        "l2": l2.tolist(),
        "fooled": fooled.tolist(),
    }


def measured(count: int, few: int) -> dict[str, Any]:
    """Every contender of both attacks."""
    net = load(NET).at(TOLERANCE)
    some = mnist("test")[: 2 * count]
    with torch.no_grad():
        right = net.predict(some.images).correct(some.labels).nonzero()[:, 0][:count]
    images, labels = some.images[right], some.labels[right]
    start, end = images[:few], labels[:few]
    work: dict[str, tuple[Tensor, Tensor, Callable[[], dict[str, Any]]]] = {}
    for name, attack, peer, epsilon in (
        ("C&W", SEARCH, foolbox_search(), None),
        ("BIM", STEPS, foolbox_steps(), EPSILON),
    ):
        low = replace(attack, search_precision="bfloat16")
        short = replace(attack, early_stop=True) if isinstance(attack, BIM) else None
        work |= {
            f"{name}: odefend": (images, labels, lambda a=attack: own(net, a, images, labels)),
            f"{name}: Foolbox on torchdiffeq": (
                images,
                labels,
                lambda p=peer, e=epsilon: theirs(net, p, e, images, labels),
            ),
            f"{name}: odefend, search in bfloat16": (images, labels, lambda a=low: own(net, a, images, labels)),
            **(
                {f"{name}: odefend, early stop": (images, labels, lambda a=short: own(net, a, images, labels))}
                if short
                else {}
            ),
            f"{name}: as published": (
                start,
                end,
                lambda p=peer, e=epsilon: theirs(net, p, e, start, end, one_by_one=True),
            ),
            f"{name}: odefend, again": (images, labels, lambda a=attack: own(net, a, images, labels)),
        }
    found = {}
    for name, (shown, true, task) in work.items():
        found[name] = judged(net, task(), shown, true)
        print(f"{name}: {found[name]['seconds'] / len(shown):.2f} s an image", flush=True)
    return found


def written(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    lines = [
        "# Attacks beside Foolbox on torchdiffeq",
        "",
        "Made by `make bench`; see README.md here.",
        "",
        described(found["machine"]),
    ]
    for name in ("C&W", "BIM"):
        rows = {key.split(": ")[1]: row for key, row in found["rows"].items() if key.startswith(name)}
        base = [rows[who]["seconds"] / rows[who]["count"] for who in ("odefend", "odefend, again")]
        body = []
        for who, row in rows.items():
            each, mine = row["seconds"] / row["count"], rows["odefend"]
            both = [i for i in range(row["count"]) if row["fooled"][i] and mine["fooled"][i]]
            ratio = sum(row["l2"][i] for i in both) / max(sum(mine["l2"][i] for i in both), 1e-12)
            body.append(
                (
                    who,
                    f"{row['count']}",
                    f"{each:.2f}",
                    f"{each / (sum(base) / 2):.2f}x",
                    f"{row['gradients']:.0f}",
                    f"{100 * row['success']:.1f} %",
                    f"{100 * row['success_tight']:.1f} %",
                    f"{sum(row['l2'][i] for i in both) / max(len(both), 1):.3f}",
                    f"{100 * (ratio - 1):+.2f} %",
                )
            )
        head = (
            "contender",
            "images",
            "s / image",
            "time over odefend's",
            "gradients / image",
            "success",
            "success at 1e-6",
            "mean L2",
            "L2 beside odefend's",
        )
        lines += ["", f"## {name}: {found['settings'][name]}", "", *table(head, body)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64, help="images for all but the published protocol (default 64)")
    parser.add_argument("--few", type=int, default=3, help="images for the published protocol (default 3)")
    chosen = parser.parse_args()
    rows = measured(chosen.images, chosen.few)
    settings = {"C&W": str(SEARCH), "BIM": str(STEPS)}
    found = {
        "machine": machine("torchdiffeq", "torchode"),
        "net": NET,
        "tolerance": TOLERANCE,
        "settings": settings,
        "rows": rows,
    }
    (HERE / "attacks-cpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (HERE / "attacks-cpu.md").write_text(written(found), encoding="utf-8")
    print(f"wrote {HERE / 'attacks-cpu.md'}")


if __name__ == "__main__":
    main()
