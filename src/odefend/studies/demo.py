"""The demo: two small nets trained on real digits, attacked, judged over tolerances, and set against the controls.

It reads from top to bottom like an experiment section: what is attacked, how, under what it is judged, and why.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from odefend.attacks import PGD, Attack, CarliniWagner
from odefend.defenses import LogUniform
from odefend.errors import OutputError
from odefend.evaluation import Condition, Craft, Judge, Ledger, Runner, Slice, View
from odefend.evaluation.controls import doses, matched_sigma
from odefend.evaluation.detection import score
from odefend.files import make_folder, write_json
from odefend.models import load, weights_digest
from odefend.progress import Progress
from odefend.version import VERSION

TOLERANCES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
ATTACKED_AT = 1e-3
MATRIX = (1e-3, 1e-1, 10.0)
SCALES = (1.0, 1.02, 1.05, 1.1, 1.25, 1.5)
PULLED_BACK = (0.95,)
VOTE_SCALES = (1.0, 1.05, 1.1, 1.25)
EPSILONS = (0.05, 0.1, 0.15, 0.2, 0.3, 1.0)
EPSILON = 0.1
STEPS = 20
VOTES = (5, 10, 20)
RANGE = LogUniform(1e-5, 1e-1)
NOISE_GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
NOISE_DRAWS = 5

# The published schedule, but for the constant it begins with: from 0.01 these nets' larger margins are reached in the
# fourth of the five rounds, which leaves no round to bisect.
SEARCH = CarliniWagner(initial_constant=1.0)

MANIFEST = "demo.json"

ODE, RES = "digits-oon", "digits-res"


@dataclass(frozen=True)
class Demo:
    """The size of the study: how many test images are attacked, how many clean ones are screened, and the effort."""

    images: int = 50
    clean: int = 200
    calibration: int = 100
    search: CarliniWagner = SEARCH
    steps: int = STEPS
    votes: int = max(VOTES)

    def craft(
        self, experiment: str, attack: Attack, view: View, source: View | None = None, shards: int = 1
    ) -> list[Craft]:
        """One attack on all attacked images, in so many shards."""
        size = -(-self.images // shards)
        slices = [
            Slice("digits", "test", start, min(start + size, self.images)) for start in range(0, self.images, size)
        ]
        return [Craft(experiment, attack, view, images, source) for images in slices]

    def pgd(self, epsilon: float = EPSILON, steps: int | None = None, early_stop: bool = True) -> PGD:
        """The L-inf attack; its step size shrinks with its number of steps."""
        return PGD(epsilon, steps=steps or self.steps, early_stop=early_stop)


def view(net: str, tolerance: float = ATTACKED_AT, gradient: str = "unrolled") -> View:
    """A net at a tolerance, or a ResNet, which has none."""
    return View(net, tolerance if net == ODE else None, gradient)


def minimum_norm(demo: Demo) -> list[Craft]:
    """Carlini-Wagner against both nets: the papers' attack, at the tolerance of training."""
    return [unit for net in (ODE, RES) for unit in demo.craft("minimum norm", demo.search, view(net), shards=2)]


def curves(demo: Demo) -> list[Craft]:
    """PGD against both nets over a range of radii, up to one that holds every image."""
    return [
        unit
        for net in (ODE, RES)
        for epsilon in EPSILONS
        for unit in demo.craft("epsilon curve", demo.pgd(epsilon), view(net))
    ]


def matrix(demo: Demo) -> list[Craft]:
    """PGD at each tolerance, all steps taken, to be judged at each other tolerance."""
    return [
        unit
        for tolerance in MATRIX
        for unit in demo.craft("tolerance matrix", demo.pgd(early_stop=False), view(ODE, tolerance))
    ]


def suspicions(demo: Demo) -> list[Craft]:
    """What a weak attack would be beaten by: more steps, other gradients, another net's gradients."""
    loose = view(ODE, MATRIX[1])
    return [
        *(
            unit
            for net in (ODE, RES)
            for unit in demo.craft("twice the steps", demo.pgd(steps=2 * demo.steps), view(net))
        ),
        *demo.craft("loose, unrolled gradients", demo.pgd(), loose),
        *demo.craft("loose, exact gradients", demo.pgd(), view(ODE, MATRIX[1], "exact")),
        *demo.craft("loose, tight gradients", demo.pgd(), loose, source=view(ODE, 1e-5)),
        *demo.craft("exact gradients", demo.pgd(), view(ODE, gradient="exact")),
        *demo.craft("tight gradients", demo.pgd(), view(ODE), source=view(ODE, 1e-5)),
        *demo.craft("coarsest, tight gradients", demo.pgd(), view(ODE, MATRIX[2]), source=view(ODE, 1e-5)),
        *demo.craft("gradients of the ResNet", demo.pgd(early_stop=False), view(ODE), source=view(RES)),
    ]


def calibration(demo: Demo) -> list[Judge]:
    """Clean calibration images at every tolerance and under a grid of noise: what a change of either does to margins."""
    still = tuple(Condition(tolerance) for tolerance in TOLERANCES)
    noisy = tuple(Condition(ATTACKED_AT, sigma=sigma, draw=draw) for sigma in NOISE_GRID for draw in range(2))
    return [Judge("doses", view(ODE), Slice("digits", "validation", 0, demo.calibration), still + noisy)]


def sigmas(ledger: Ledger) -> dict[float, float]:
    """The standard deviation of dose-matched noise for each change of tolerance, from the calibration rows."""
    rows = ledger.read("judged").filter(pl.col("experiment") == "doses")
    by_tolerance, by_sigma = doses(rows, ATTACKED_AT)
    return {
        tolerance: matched_sigma(dose, by_sigma) for tolerance, dose in by_tolerance.items() if tolerance != ATTACKED_AT
    }


def vote_sigma(ledger: Ledger) -> float:
    """Noise of the same dose as the published range of tolerances: the root mean square over its decades."""
    rows = ledger.read("judged").filter(pl.col("experiment") == "doses")
    by_tolerance, by_sigma = doses(rows, ATTACKED_AT)
    inside = [dose**2 for tolerance, dose in by_tolerance.items() if RANGE.low <= tolerance <= RANGE.high]
    return matched_sigma((sum(inside) / len(inside)) ** 0.5, by_sigma)


def judgements(demo: Demo, noise: dict[float, float], voting_noise: float) -> list[Judge]:
    """Everything the crafted images and their clean originals are shown to."""
    still = tuple(Condition(tolerance, scale=s) for tolerance in TOLERANCES for s in SCALES)
    pulled = tuple(Condition(ATTACKED_AT, scale=s) for s in PULLED_BACK)
    noisy = tuple(
        Condition(ATTACKED_AT, sigma=sigma, draw=draw) for sigma in noise.values() for draw in range(NOISE_DRAWS)
    )
    strongest = max(noise.values())
    pushed = tuple(
        Condition(ATTACKED_AT, sigma=strongest, draw=draw, scale=s) for s in SCALES[1:] for draw in range(NOISE_DRAWS)
    )
    units: list[Judge] = []
    for unit in minimum_norm(demo):
        if unit.view.net == ODE:
            units.append(Judge("recovery", unit.view, unit.images, still + pulled + noisy + pushed, unit))
            units.extend(_ballots(demo, unit.images, voting_noise, VOTE_SCALES, unit))
        else:
            units.append(
                Judge(
                    "recovery", unit.view, unit.images, tuple(Condition(scale=s) for s in (*SCALES, *PULLED_BACK)), unit
                )
            )
    everywhere = tuple(Condition(tolerance) for tolerance in MATRIX)
    units.extend(Judge("tolerance matrix", unit.view, unit.images, everywhere, unit) for unit in matrix(demo))
    clean = Slice("digits", "test", 0, demo.clean)
    units.append(Judge("clean", view(ODE), clean, tuple(Condition(tolerance) for tolerance in TOLERANCES)))
    loud = tuple(Condition(ATTACKED_AT, sigma=strongest, draw=draw) for draw in range(NOISE_DRAWS))
    units.append(Judge("clean under noise", view(ODE), clean, loud))
    units.append(Judge("clean", view(RES), clean, (Condition(),)))
    for images in (clean, Slice("digits", "validation", 0, demo.calibration)):
        units.extend(_ballots(demo, images, voting_noise, (1.0,), None))
    return units


def _ballots(demo: Demo, images: Slice, sigma: float, scales: Sequence[float], crafted: Craft | None) -> list[Judge]:
    """The votes: V solves at random tolerances, and beside them V passes under noise of the same dose."""
    draws = range(demo.votes)
    random = tuple(Condition(ATTACKED_AT, random=RANGE, draw=draw, scale=s) for s in scales for draw in draws)
    noisy = tuple(Condition(ATTACKED_AT, sigma=sigma, draw=draw, scale=s) for s in scales for draw in draws)
    return [
        Judge("tolerance vote", view(ODE), images, random, crafted),
        Judge("noise vote", view(ODE), images, noisy, crafted),
    ]


def _cost(unit: Craft | Judge) -> float:
    """Roughly how long a unit takes, in seconds on one core: only proportions matter."""
    count = unit.images.stop - unit.images.start
    slow = 1.0 if unit.view.net == ODE else 0.1
    if isinstance(unit, Judge):
        return 0.1 + 0.002 * count * len(unit.conditions) * slow
    # Early stops and aborts leave about half of the gradients to be computed.
    attack = unit.attack
    gradients = attack.binary_search_steps * attack.steps / 2 if isinstance(attack, CarliniWagner) else STEPS
    return 0.1 + (0.1 + 0.003 * count) * gradients * slow


def measure(folder: Path, demo: Demo, progress: Progress, workers: int | None = None) -> Ledger:
    """Do whatever of the study is not yet in the ledger at `folder`/ledger; returns the ledger.

    Raises OutputError where the folder holds a demo of other settings, nets or code: rows of two must not be mixed.
    """
    settings = {"demo": repr(demo), "version": VERSION, "nets": {net: weights_digest(load(net)) for net in (ODE, RES)}}
    make_folder(folder)
    manifest = folder / MANIFEST
    if manifest.exists() and _manifest(folder)["settings"] != settings:
        raise OutputError(
            f"{folder}: holds a demo of other settings, nets or code. Choose another folder, or remove it."
        )
    write_json(manifest, {"settings": settings, "finished": False})
    crafted = [*calibration(demo), *minimum_norm(demo), *curves(demo), *matrix(demo), *suspicions(demo)]
    # Which noise matches which tolerance is known after calibration; how much of it there is to judge, before.
    placeholder = judgements(demo, dict.fromkeys((t for t in TOLERANCES if t != ATTACKED_AT), 0.1), 0.1)
    first, second = sum(map(_cost, crafted)), sum(map(_cost, placeholder))
    progress.stage("demo", first + second)
    with Runner(folder / "ledger", workers) as runner:
        runner.run([(unit, _cost(unit)) for unit in crafted], lambda done: progress.advance(done, "attack"))
        noise, voting_noise = sigmas(runner.ledger), vote_sigma(runner.ledger)
        runner.run(
            [(unit, _cost(unit)) for unit in judgements(demo, noise, voting_noise)],
            lambda done: progress.advance(first + done, "judge"),
        )
    score(runner.ledger)
    write_json(manifest, {"settings": settings, "finished": True})
    return runner.ledger


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {"settings": content["settings"], "finished": content["finished"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{folder / MANIFEST}: missing or damaged. Name a folder that `odefend demo` wrote."
        ) from error


def finished(folder: Path) -> Ledger:
    """The ledger of a finished demo. Raises OutputError for a folder that holds none, or an unfinished one."""
    if not _manifest(folder)["finished"]:
        raise OutputError(f"{folder}: holds a demo that was stopped. `odefend demo --out {folder}` finishes it.")
    return Ledger(folder / "ledger")
