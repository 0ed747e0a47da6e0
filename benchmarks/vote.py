"""What a vote over tolerances costs: settled as early as it can be, in full, and as 20 passes of torchdiffeq.
Writes vote-cpu.json and vote-cpu.md.

python benchmarks/vote.py [--net mnist-oon] [--data mnist] [--images 64] [--rounds 3]

torchdiffeq solves the batch at one tolerance in each pass, drawn from the same range. Clean images and C&W's are timed apart:
clean ones agree early.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contenders import ConcatField
from measure import machine
from table import described, table
from torch import Tensor
from torchdiffeq import odeint

from odefend.attacks import named_attack
from odefend.data import DATASETS
from odefend.detectors import ToleranceVote, agreement
from odefend.models import ODENet, load

V, LEAST = 20, (11, 20)
HERE = Path(__file__).parent


def torchdiffeq_votes(net: ODENet, images: Tensor, tolerances: list[float]) -> Tensor:
    """The labels of a pass at each tolerance, (images, passes)."""
    field, span = ConcatField(net), torch.tensor([0.0, 1.0])
    with torch.no_grad():
        state = net.stem(images)
        ends = [odeint(field, state, span, rtol=t, atol=t, method="dopri5")[1] for t in tolerances]
        return torch.stack([net.head(end).argmax(1) for end in ends], 1)


def timed(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, in turn."""
    found = {name: list[float]() for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            found[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in found.items()}


def measured(net: ODENet, images: Tensor, ids: Sequence[str], rounds: int) -> dict[str, Any]:
    """Evaluations of the field and seconds, of the vote in full and settled, and of as many passes of torchdiffeq."""
    vote = ToleranceVote(net, V)
    defended = vote.defense(net)
    with torch.no_grad():
        each = torch.stack([defended.draw(ids, index).predict(images).nfe for index in range(V)]).sum(0)
    drawn = vote.defense.distribution.draw(0, [str(index) for index in range(V)], 0).tolist()
    seconds = timed(
        {
            "torchdiffeq": lambda: agreement(torchdiffeq_votes(net, images, drawn)),
            "in full": lambda: vote.ballots(images, ids),
            **{f"settled at {least}": partial(vote.settled, images, ids, least) for least in LEAST},
        },
        rounds,
    )
    settled = {least: vote.settled(images, ids, least) for least in LEAST}
    return {
        "nfe": {"in full": int(each.sum())}
        | {f"settled at {least}": int(found.nfe.sum()) for least, found in settled.items()},
        "same": {
            f"settled at {least}": bool((found.accepted == vote.accepts(images, ids, least)).all())
            for least, found in settled.items()
        },
        "dearer": {f"settled at {least}": int((found.nfe > each).sum()) for least, found in settled.items()},
        "seconds": seconds,
    }


def written(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    body = [
        (
            kind,
            way,
            "" if way == "in full" else "identical" if one["same"][way] else "DIFFERENT",
            "" if way == "in full" else f"{one['dearer'][way]} of {found['images']}",
            f"{one['nfe']['in full'] / one['nfe'][way]:.2f}",
            f"{one['seconds'][way] / one['seconds']['torchdiffeq']:.2f}",
        )
        for kind, one in found["kinds"].items()
        for way in one["nfe"]
    ]
    head = (
        "images",
        f"vote of {V}",
        "verdicts",
        "images that took more evaluations",
        "times fewer evaluations",
        f"of the time of {V} passes of torchdiffeq",
    )
    lines = [
        "# A vote over tolerances",
        "",
        "Made by `python benchmarks/vote.py`; see README.md here.",
        "",
        described(found["machine"]),
        "",
        f"{found['net']}, {found['images']} test images and what C&W makes of them, on one thread, medians of {found['rounds']} "
        "rounds. Settled at v: stopped once it is sure whether v solves agree.",
        "",
        *table(head, body),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Count evaluations of the field, compare verdicts, time, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="mnist-oon")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    net, some = load(given.net), DATASETS[given.data]("test")[: given.images]
    assert isinstance(net, ODENet)
    attacked = named_attack("fast")(net, some.images, some.labels, ids=some.ids)
    found: dict[str, Any] = {"machine": machine(), **vars(given)}
    found["kinds"] = {
        kind: measured(net, images, some.ids, given.rounds)
        for kind, images in (("clean", some.images), ("C&W", attacked.images))
    }
    (HERE / "vote-cpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (HERE / "vote-cpu.md").write_text(written(found), encoding="utf-8")
    print(written(found))


if __name__ == "__main__":
    main()
