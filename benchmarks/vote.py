"""What a vote over tolerances costs: settled as early as it can be, in full, and as 20 passes of torchdiffeq.

python benchmarks/vote.py [--net mnist-oon] [--data mnist] [--images 64] [--rounds 3]

torchdiffeq solves the batch at one tolerance in each pass, drawn from the same range. Clean images and C&W's are timed apart:
clean ones agree early.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from contenders import ConcatField
from torch import Tensor
from torchdiffeq import odeint

from odefend.attacks import named_attack
from odefend.data import DATASETS
from odefend.detectors import ToleranceVote, agreement
from odefend.models import ODENet, load

V = 20


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


def main() -> None:
    """Count evaluations of the field, compare verdicts, and time."""
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
    vote = ToleranceVote(net, V)
    for kind, images in (("clean", some.images), ("C&W", attacked.images)):
        defended = vote.defense(net)
        with torch.no_grad():
            full = sum(int(defended.draw(some.ids, index).predict(images).nfe.sum()) for index in range(V))
        drawn = vote.defense.distribution.draw(0, [str(index) for index in range(V)], 0).tolist()
        seconds = timed(
            {
                "torchdiffeq": lambda images=images, drawn=drawn: agreement(torchdiffeq_votes(net, images, drawn)),
                "in full": lambda images=images: vote.ballots(images, some.ids),
                **{
                    f"settled at {least}": lambda images=images, least=least: vote.settled(images, some.ids, least)
                    for least in (11, V)
                },
            },
            given.rounds,
        )
        print(
            f"{kind}: {V} passes of torchdiffeq {seconds['torchdiffeq']:.2f} s, of odefend {seconds['in full']:.2f} s"
        )
        for least in (11, V):
            found = vote.settled(images, some.ids, least)
            same = bool((found.accepted == vote.accepts(images, some.ids, least)).all())
            print(
                f"  v_min = {least}: verdicts {'identical' if same else 'DIFFERENT'}, {full / int(found.nfe.sum()):.2f}x fewer "
                f"evaluations, {seconds[f'settled at {least}'] / seconds['torchdiffeq']:.2f} of torchdiffeq's time"
            )


if __name__ == "__main__":
    main()
