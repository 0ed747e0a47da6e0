"""The attacks on trial: beside Foolbox, in bfloat16, against a random tolerance, against detectors, and on time.

It reads from top to bottom like an experiment section. Every number of its tables comes from rows of the ledger.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from odefend.attacks import BIM, PGD, Attack, Availability, CarliniWagner, FoolboxAttack
from odefend.defenses import LogUniform
from odefend.evaluation import Condition, Craft, Judge, Ledger, Runner, Screen, Slice, View, Watch
from odefend.evaluation.detection import threshold
from odefend.evaluation.ledger import digest
from odefend.evaluation.plan import Unit, work
from odefend.norms import L2, RMS, Norm
from odefend.progress import Progress
from odefend.version import VERSION

TOLERANCE = 1e-3
TOLERANCES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
RANGE = LogUniform(1e-5, 1e-1)
FRESH = 10
"""Draws under which images made against a random tolerance are judged; no attack has seen them."""
DETECTORS = ("one-pass-margin", "tolerance-vote")
ALARMS = (0.01, 0.05)
"""Shares of clean images that a detector may refuse."""
PUBLISHED = CarliniWagner()
QUICK = CarliniWagner(steps=40, binary_search_steps=4, learning_rate=0.1, initial_constant=1.0)


@dataclass(frozen=True)
class Trial:
    """The size of the study: `images` for most of it, fewer where every gradient costs several solves."""

    net: str = "mnist-oon"
    data: str = "mnist"
    pixels: int = 28 * 28
    images: int = 200
    low: int = 100
    drawn: int = 50
    watched: int = 25
    calibration: int = 200
    epsilon: float = 0.1
    steps: int = 20
    draws: int = 4
    shard: int = 50
    search: CarliniWagner = PUBLISHED
    quick: CarliniWagner = QUICK
    rms: float = 0.05

    @property
    def view(self) -> View:
        """The net at the tolerance of its training."""
        return View(self.net, TOLERANCE)

    @property
    def name(self) -> str:
        """Of this size of the study, so that rows of two sizes in one folder are not mixed."""
        return f"attacks-{digest({'trial': repr(self), 'version': VERSION})[:8]}"

    def slices(self, count: int) -> list[Slice]:
        """The first test images, in shards."""
        return [
            Slice(self.data, "test", start, min(start + self.shard, count)) for start in range(0, count, self.shard)
        ]

    def craft(
        self, experiment: str, attack: Attack, count: int | None = None, watch: Watch | None = None
    ) -> list[Craft]:
        """One attack on the net, in shards."""
        return [
            Craft(experiment, attack, self.view, images, watch=watch) for images in self.slices(count or self.images)
        ]


def beside_foolbox(trial: Trial) -> list[Craft]:
    """The same settings here and there: the search for the nearest image, and steps in balls of three norms. What Foolbox 1.8
    and 2.0 called L2 is RMS here; in Foolbox 3 it is an L2 ball of radius times the root of the number of pixels."""
    search, steps, epsilon = trial.search, trial.steps, trial.epsilon
    theirs = {
        "steps": search.steps,
        "binary_search_steps": search.binary_search_steps,
        "stepsize": search.learning_rate,
        "initial_const": search.initial_constant,
        "confidence": search.confidence,
        "abort_early": search.abort_early,
    }
    length = trial.rms * math.sqrt(trial.pixels)

    def bim(radius: float, norm: Norm | None = None) -> BIM:
        how = BIM(radius, steps=steps, step_size=radius / 5, early_stop=False)
        return how if norm is None else replace(how, norm=norm)

    return [
        *trial.craft("C&W", search),
        *trial.craft("C&W, Foolbox", FoolboxAttack("L2CarliniWagnerAttack", theirs)),
        *trial.craft("BIM", bim(epsilon)),
        *trial.craft("BIM, Foolbox", _foolbox_bim("Linf", epsilon, steps)),
        *trial.craft("BIM, RMS", bim(trial.rms, RMS)),
        *trial.craft("BIM, L2", bim(length, L2)),
        *trial.craft("BIM, L2, Foolbox", _foolbox_bim("L2", length, steps)),
    ]


def _foolbox_bim(norm: str, epsilon: float, steps: int) -> FoolboxAttack:
    settings = {"steps": steps, "abs_stepsize": epsilon / 5, "random_start": False}
    return FoolboxAttack(f"{norm}BasicIterativeAttack", settings, epsilon)


def lower_precision(trial: Trial) -> list[Craft]:
    """The same search with gradients in bfloat16."""
    return trial.craft("C&W, bfloat16", replace(trial.search, search_precision="bfloat16"), trial.low)


def random_tolerance(trial: Trial) -> list[Craft]:
    """Without and with knowing that the tolerance will be drawn: the net as trained, or an expectation over draws."""
    pgd = PGD(trial.epsilon, steps=trial.steps // 2, early_stop=False)
    several = replace(trial.view, random=RANGE, draws=trial.draws)
    return [
        *trial.craft("random tolerance, plain PGD", pgd),
        *(replace(unit, view=several) for unit in trial.craft("random tolerance, knowing PGD", pgd)),
        *trial.craft("random tolerance, plain C&W", trial.quick, trial.drawn),
        *(
            replace(unit, view=several)
            for unit in trial.craft("random tolerance, knowing C&W", trial.quick, trial.drawn)
        ),
    ]


def unguarded(trial: Trial) -> list[Craft]:
    """Attacks that know nothing of a detector."""
    return [
        *trial.craft("plain PGD", PGD(trial.epsilon, steps=trial.steps), trial.watched),
        *trial.craft("plain C&W", trial.quick, trial.watched),
    ]


def guarded(trial: Trial, limits: dict[tuple[str, float], tuple[float, float]]) -> list[Craft]:
    """The same attacks, knowing the detector and its threshold; `limits`: threshold and scale by detector and alarms."""
    found = []
    for (detector, allowed), (level, scale) in limits.items():
        watch = Watch(detector, level, scale)
        of = f"{detector}, {allowed:g}"
        found += trial.craft(f"knowing PGD: {of}", PGD(trial.epsilon, steps=trial.steps), trial.watched, watch)
        found += trial.craft(f"knowing C&W: {of}", trial.quick, trial.watched, watch)
    return found


def on_time(trial: Trial) -> list[Craft]:
    """The attack on the solver's work."""
    return trial.craft("availability", Availability(trial.epsilon, steps=trial.steps))


def judgements(trial: Trial) -> list[Judge]:
    """What the images made above are judged under."""
    grid = tuple(Condition(tolerance) for tolerance in TOLERANCES)
    draws = tuple(Condition(TOLERANCE, random=RANGE, draw=draw) for draw in range(FRESH))
    at_home = (Condition(TOLERANCE),)
    searches = [unit for unit in (*beside_foolbox(trial), *lower_precision(trial)) if unit.experiment.startswith("C&W")]
    return [
        *(Judge(unit.experiment, trial.view, unit.images, grid, unit) for unit in searches),
        *(Judge(unit.experiment, trial.view, unit.images, draws, unit) for unit in random_tolerance(trial)),
        *(Judge("random tolerance, clean", trial.view, images, draws) for images in trial.slices(trial.images)),
        *(Judge(unit.experiment, trial.view, unit.images, at_home, unit) for unit in on_time(trial)),
        *(Judge("clean", trial.view, images, at_home) for images in trial.slices(trial.images)),
    ]


def capped(trial: Trial, cap: int) -> list[Judge]:
    """The attack on time, judged with a cap on steps that every clean image keeps."""
    view = replace(trial.view, max_steps=cap)
    return [Judge("availability, capped", view, unit.images, (Condition(TOLERANCE),), unit) for unit in on_time(trial)]


def clean_screens(trial: Trial) -> list[Screen]:
    """Clean images before the detectors: to set thresholds by, and to see how many they refuse."""
    held_out = Slice(trial.data, "validation", 0, trial.calibration)
    test = Slice(trial.data, "test", 0, trial.images)
    return [
        Screen("clean", trial.view, images, Watch(detector, 0.0, 1.0))
        for detector in DETECTORS
        for images in (held_out, test)
    ]


def attacked_screens(trial: Trial) -> list[Screen]:
    """What attackers who knew nothing made, before the detectors."""
    return [
        Screen(unit.experiment, trial.view, unit.images, Watch(detector, 0.0, 1.0), unit)
        for detector in DETECTORS
        for unit in unguarded(trial)
    ]


def limits(scored: pl.DataFrame) -> dict[tuple[str, float], tuple[float, float]]:
    """(threshold, scale) of each detector for each share of alarms; the scale is the standard deviation of its scores."""
    found = {}
    for detector in DETECTORS:
        rows = scored.filter((pl.col("detector") == detector) & (pl.col("kind") == "calibration"))
        spread = float(rows["score"].to_numpy().std()) or 1.0
        for allowed in ALARMS:
            found[detector, allowed] = (threshold(scored, detector, allowed), spread)
    return found


def measure(folder: Path, trial: Trial, progress: Progress, workers: int | None = None) -> Ledger:
    """Do whatever is not yet in the ledger at `folder`; returns the ledger."""
    first: list[Unit] = [
        *beside_foolbox(trial),
        *lower_precision(trial),
        *random_tolerance(trial),
        *unguarded(trial),
        *on_time(trial),
        *clean_screens(trial),
        *attacked_screens(trial),
        *judgements(trial),
    ]
    guess = dict.fromkeys(((detector, allowed) for detector in DETECTORS for allowed in ALARMS), (0.0, 1.0))
    last = sum(work(unit) for unit in guarded(trial, guess))
    progress.stage("attacks on trial", sum(map(work, first)) + last)
    with Runner(folder, workers) as runner:
        _run(runner, trial, first, progress.advance)
        done = sum(map(work, first))
        scored = runner.ledger.read("scored", trial.name)
        _run(runner, trial, guarded(trial, limits(scored)), lambda more: progress.advance(done + more))
        clean = runner.ledger.read("judged", trial.name).filter(pl.col("experiment") == "clean")
        _run(runner, trial, capped(trial, _cap(clean)), lambda _: None)
    return runner.ledger


def _cap(clean: pl.DataFrame) -> int:
    """As many steps as the costliest clean image asks for."""
    return int((clean["accepted"] + clean["rejected"]).max())  # type: ignore[arg-type]


def _run(
    runner: Runner, trial: Trial, units: list[Unit] | list[Craft] | list[Judge], tell: Callable[[float], None]
) -> None:
    runner.run([(unit, work(unit)) for unit in units], tell, trial.name)
