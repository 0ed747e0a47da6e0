"""odefend's APGD and WorstCase beside pyautoattack's, at equal steps. Writes worst-case-cpu.json and worst-case-cpu.md.

The same nets, images and radii, one thread; what a contender found is judged by odefend's solver. Times are of the processor,
which other work on the machine hardly moves. Every row is saved when it is done, and a run goes on after the rows that are there:
delete the JSON file to begin anew.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measure import machine
from table import described, table

from odefend import APGD, L2, LINF, Attack, AutoAttack, LabelledImages, WorstCase, digits, load, mnist
from odefend.files import write_text
from odefend.norms import Norm

HERE = Path(__file__).parent
DIGITS, MNIST, SEED = "digits", "mnist", 0


@dataclass(frozen=True)
class Case:
    """A net and so many random test images of it, a ball, and the steps of both sides."""

    net: str
    images: int
    norm: Norm
    epsilon: float
    steps: int
    parts: tuple[str, ...] = ("APGD-CE", "APGD-T")

    def __str__(self) -> str:
        return f"{self.net}, {self.images} images, {self.norm.name} {self.epsilon:g}"

    def data(self) -> LabelledImages:
        """The images: a random draw of the test part."""
        return (digits if self.net.startswith(DIGITS) else mnist)("test").sample(self.images, SEED)

    def contenders(self) -> dict[tuple[str, str], Attack]:
        """By part and who."""
        ball = {"epsilon": self.epsilon, "norm": self.norm}
        climb = APGD(**ball, steps=self.steps)
        auto = AutoAttack(**ball, steps=self.steps)
        all_of_them = {
            ("APGD-CE", "odefend"): climb,
            ("APGD-CE", "pyautoattack"): replace(auto, attacks=("apgd-ce",)),
            ("APGD-T", "odefend"): replace(climb, loss="margin", targets=9),  # theirs: DLR
            ("APGD-T", "pyautoattack"): replace(auto, attacks=("apgd-t",)),
            ("standard", "odefend"): WorstCase(**ball),
            ("standard", "pyautoattack"): AutoAttack(**ball),
        }
        return {key: attack for key, attack in all_of_them.items() if key[0] in self.parts}


CASES = (
    Case("digits-oon", 200, LINF, 0.1, 100),
    Case("digits-oon", 200, L2, 0.6, 100),
    Case("digits-oon-adversarial", 200, LINF, 0.1, 100),
    Case("mnist-mix-adversarial", 100, LINF, 0.3, 20),
    Case("mnist-oon", 100, LINF, 0.1, 20),
    Case("digits-oon", 200, LINF, 0.1, 100, ("standard",)),
    Case("mnist-mix-adversarial", 30, LINF, 0.3, 100, ("standard",)),
)


def measured(case: Case, attack: Attack) -> dict[str, Any]:
    """What one contender breaks, and in what time."""
    net, some = load(case.net), case.data()
    started, wall = time.process_time(), time.perf_counter()
    found = attack(net, some.images, some.labels, ids=some.ids)
    return {
        "seconds": time.process_time() - started,
        "wall": time.perf_counter() - wall,
        "count": len(some),
        "wrong": int(found.initially_wrong.sum()),
        "broken": "".join(str(int(one)) for one in found.success),
        "gradients": found.gradient_calls.double().mean().item(),
        "answers": found.forward_calls.double().mean().item(),
        "attack": attack.record(),
    }


def written(found: dict[str, Any]) -> str:
    """The measurements as Markdown."""
    body = []
    for rows in found["rows"].values():
        for part in dict.fromkeys(key.split(": ")[0] for key in rows):
            own, theirs = (rows.get(f"{part}: {who}") for who in ("odefend", "pyautoattack"))
            if own and theirs:
                body.append(compared(own, theirs, part))
    head = (
        "net, ball",
        "part",
        "steps",
        "right before",
        "broken by odefend",
        "by pyautoattack",
        "only by odefend",
        "only by pyautoattack",
        "odefend, s",
        "pyautoattack, s",
        "ratio",
        "gradients + answers an image",
        "pyautoattack's",
    )
    lines = [
        "# APGD and the worst case beside pyautoattack",
        "",
        "Made by `python benchmarks/worst_case.py`; see README.md here.",
        "",
        described(found["machine"]),
        "",
        *table(head, body),
    ]
    return "\n".join(lines) + "\n"


def compared(own: dict[str, Any], theirs: dict[str, Any], part: str) -> tuple[str, ...]:
    """One line of the table."""
    one, other = ([bit == "1" for bit in side["broken"]] for side in (own, theirs))
    pairs = list(zip(one, other, strict=True))
    right = own["count"] - own["wrong"]
    return (
        f"{own['case']}",
        part,
        f"{own['steps']}",
        f"{right} of {own['count']}",
        *(f"{sum(side)} ({100 * sum(side) / right:.1f} %)" for side in (one, other)),
        f"{sum(mine and not its for mine, its in pairs)}",
        f"{sum(its and not mine for mine, its in pairs)}",
        f"{own['seconds']:.0f}",
        f"{theirs['seconds']:.0f}",
        f"{own['seconds'] / theirs['seconds']:.2f}",
        *(f"{side['gradients']:.0f} + {side['answers']:.0f}" for side in (own, theirs)),
    )


def main() -> None:
    """Measure what is missing and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="", help="only those whose name begins so, such as digits")
    chosen, file = parser.parse_args(), HERE / "worst-case-cpu.json"
    torch.set_num_threads(1)
    found = (
        json.loads(file.read_text(encoding="utf-8"))
        if file.exists()
        else {"machine": machine("pyautoattack"), "rows": {}}
    )
    for case in CASES:
        if not case.net.startswith(chosen.cases):
            continue
        rows = found["rows"].setdefault(f"{case}, {case.steps} steps", {})
        for (part, who), attack in case.contenders().items():
            if f"{part}: {who}" in rows:
                continue
            row = measured(case, attack) | {"case": str(case), "steps": case.steps}
            rows[f"{part}: {who}"] = row
            write_text(file, json.dumps(found, indent=1) + "\n")
            write_text(HERE / "worst-case-cpu.md", written(found))
            print(f"{case}, {part}, {who}: {row['broken'].count('1')} broken, {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
