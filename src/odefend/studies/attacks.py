"""The attacks on trial: beside Foolbox, in bfloat16, against a random tolerance, against detectors, and on time.

It reads from top to bottom like an experiment section. Every number of its tables comes from rows of the ledger.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from odefend.attacks import BIM, PGD, Attack, Availability, CarliniWagner, FoolboxAttack
from odefend.defenses import LogUniform
from odefend.evaluation import (
    Condition,
    Craft,
    Defended,
    Guarded,
    Judge,
    Ledger,
    Runner,
    Screen,
    Slice,
    View,
    Watch,
    shards,
)
from odefend.evaluation.detection import threshold
from odefend.evaluation.ledger import canonical, digest
from odefend.evaluation.plan import Unit, work
from odefend.norms import L2, RMS, Norm
from odefend.progress import Progress
from odefend.version import code_version

TOLERANCE = 1e-3
TOLERANCES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
RANGE = LogUniform(1e-5, 1e-1)
DRAWN = Defended("random-tolerance", canonical({"distribution": asdict(RANGE)}))
FRESH = 10
"""Draws under which images made against a random tolerance are judged; no attack has seen them."""
DETECTORS = ("one-pass-margin", "tolerance-vote")
ALARMS = (0.01, 0.05)
"""Shares of clean images that a detector may refuse."""
PUBLISHED = CarliniWagner()
QUICK = CarliniWagner(steps=40, binary_search_steps=4, learning_rate=0.1, initial_constant=1.0)


@dataclass(frozen=True)
class Setup:
    """The size of the study: `images` for most of it, fewer where every gradient costs several solves; `sample`: the seed by which
    they are drawn."""

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
    sample: int | None = 0
    search: CarliniWagner = PUBLISHED
    quick: CarliniWagner = QUICK
    rms: float = 0.05
    radii: tuple[float, ...] = (0.1, 0.3, 1.0)

    @property
    def view(self) -> View:
        """The net at the tolerance of its training."""
        return View(self.net, TOLERANCE)

    @property
    def name(self) -> str:
        """Of this size of the study, so that rows of two sizes in one folder are not mixed."""
        return f"attacks-{digest({'setup': repr(self), 'version': code_version()})[:8]}"

    def slices(self, count: int) -> list[Slice]:
        """Test images, in shards."""
        return shards(self.data, "test", count, self.shard, self.sample)

    def craft(
        self, experiment: str, attack: Attack, count: int | None = None, guard: Guarded | None = None
    ) -> list[Craft]:
        """One attack on the net, in shards."""
        return [
            Craft(experiment, attack, self.view, images, guard=guard) for images in self.slices(count or self.images)
        ]


def beside_foolbox(setup: Setup) -> list[Craft]:
    """The same settings here and there: the search for the nearest image, and steps in balls of three norms. What Foolbox 1.8
    and 2.0 called L2 is RMS here; in Foolbox 3 it is an L2 ball of radius times the root of the number of pixels."""
    search, steps, epsilon = setup.search, setup.steps, setup.epsilon
    theirs = {
        "steps": search.steps,
        "binary_search_steps": search.binary_search_steps,
        "stepsize": search.learning_rate,
        "initial_const": search.initial_constant,
        "confidence": search.confidence,
        "abort_early": search.abort_early,
    }
    length = setup.rms * math.sqrt(setup.pixels)

    def bim(radius: float, norm: Norm | None = None) -> BIM:
        how = BIM(radius, steps=steps, step_size=radius / 5, early_stop=False)
        return how if norm is None else replace(how, norm=norm)

    return [
        *setup.craft("C&W", search),
        *setup.craft("C&W, Foolbox", FoolboxAttack("L2CarliniWagnerAttack", theirs)),
        *setup.craft("BIM", bim(epsilon)),
        *setup.craft("BIM, Foolbox", _foolbox_bim("Linf", epsilon, steps)),
        *setup.craft("BIM, RMS", bim(setup.rms, RMS)),
        *setup.craft("BIM, L2", bim(length, L2)),
        *setup.craft("BIM, L2, Foolbox", _foolbox_bim("L2", length, steps)),
    ]


def _foolbox_bim(norm: str, epsilon: float, steps: int) -> FoolboxAttack:
    settings = {"steps": steps, "abs_stepsize": epsilon / 5, "random_start": False}
    return FoolboxAttack(f"{norm}BasicIterativeAttack", settings, epsilon)


def lower_precision(setup: Setup) -> list[Craft]:
    """The same search with gradients in bfloat16."""
    return setup.craft("C&W, bfloat16", replace(setup.search, search_precision="bfloat16"), setup.low)


def random_tolerance(setup: Setup) -> list[Craft]:
    """Without and with knowing that the tolerance will be drawn: the net as trained, or an expectation over draws."""
    pgd = PGD(setup.epsilon, steps=setup.steps // 2, early_stop=False)
    several = replace(setup.view, defense=DRAWN, draws=setup.draws)
    return [
        *setup.craft("random tolerance, plain PGD", pgd),
        *(replace(unit, view=several) for unit in setup.craft("random tolerance, knowing PGD", pgd)),
        *setup.craft("random tolerance, plain C&W", setup.quick, setup.drawn),
        *(
            replace(unit, view=several)
            for unit in setup.craft("random tolerance, knowing C&W", setup.quick, setup.drawn)
        ),
    ]


def unguarded(setup: Setup) -> list[Craft]:
    """Attacks that know nothing of a detector."""
    return [
        *setup.craft("plain PGD", PGD(setup.epsilon, steps=setup.steps), setup.watched),
        *setup.craft("plain C&W", setup.quick, setup.watched),
    ]


def guarded(setup: Setup, limits: dict[tuple[str, float], tuple[float, float]]) -> list[Craft]:
    """The same attacks, knowing the detector and its threshold; `limits`: threshold and scale by detector and alarms."""
    found = []
    for (detector, allowed), (level, scale) in limits.items():
        guard = Guarded(Watch(detector), level, scale)
        of = f"{detector}, {allowed:g}"
        found += setup.craft(f"knowing PGD: {of}", PGD(setup.epsilon, steps=setup.steps), setup.watched, guard)
        found += setup.craft(f"knowing C&W: {of}", setup.quick, setup.watched, guard)
    return found


def on_time(setup: Setup) -> list[Craft]:
    """The attack on the solver's work, up to a radius at which any image will do."""
    return [
        unit
        for radius in setup.radii
        for unit in setup.craft(slowed(radius), Availability(radius, steps=setup.steps), setup.drawn)
    ]


def slowed(radius: float) -> str:
    """The experiment of the attack on the solver's work at a radius."""
    return f"availability, radius {radius:g}"


def judgements(setup: Setup) -> list[Judge]:
    """What the images made above are judged under."""
    grid = tuple(Condition(tolerance) for tolerance in TOLERANCES)
    draws = tuple(Condition(TOLERANCE, random=RANGE, draw=draw) for draw in range(FRESH))
    at_home = (Condition(TOLERANCE),)
    searches = [unit for unit in (*beside_foolbox(setup), *lower_precision(setup)) if unit.experiment.startswith("C&W")]
    return [
        *(Judge(unit.experiment, setup.view, unit.images, grid, unit) for unit in searches),
        *(Judge(unit.experiment, setup.view, unit.images, draws, unit) for unit in random_tolerance(setup)),
        *(Judge("random tolerance, clean", setup.view, images, draws) for images in setup.slices(setup.images)),
        *(Judge(unit.experiment, setup.view, unit.images, at_home, unit) for unit in on_time(setup)),
        *(Judge("clean", setup.view, images, at_home) for images in setup.slices(setup.images)),
    ]


def capped(setup: Setup, cap: int) -> list[Judge]:
    """The attack on time, judged with a cap on steps that every clean image keeps."""
    view = replace(setup.view, max_steps=cap)
    return [
        Judge(f"{unit.experiment}, capped", view, unit.images, (Condition(TOLERANCE),), unit) for unit in on_time(setup)
    ]


def clean_screens(setup: Setup) -> list[Screen]:
    """Clean images before the detectors: to set thresholds by, and to see how many they refuse."""
    held_out = Slice(setup.data, "validation", 0, setup.calibration, sample=setup.sample)
    test = Slice(setup.data, "test", 0, setup.images, sample=setup.sample)
    return [
        Screen("clean", setup.view, images, Watch(detector)) for detector in DETECTORS for images in (held_out, test)
    ]


def attacked_screens(setup: Setup) -> list[Screen]:
    """What attackers who knew nothing made, before the detectors."""
    return [
        Screen(unit.experiment, setup.view, unit.images, Watch(detector), unit)
        for detector in DETECTORS
        for unit in unguarded(setup)
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


def measure(folder: Path, setup: Setup, progress: Progress, workers: int | None = None) -> Ledger:
    """Do whatever is not yet in the ledger at `folder`; returns the ledger."""
    first: list[Unit] = [
        *beside_foolbox(setup),
        *lower_precision(setup),
        *random_tolerance(setup),
        *unguarded(setup),
        *on_time(setup),
        *clean_screens(setup),
        *attacked_screens(setup),
        *judgements(setup),
    ]
    guess = dict.fromkeys(((detector, allowed) for detector in DETECTORS for allowed in ALARMS), (0.0, 1.0))
    last = sum(work(unit) for unit in guarded(setup, guess))
    progress.stage("attacks on trial", sum(map(work, first)) + last)
    with Runner(folder, workers) as runner:
        _run(runner, setup, first, progress.advance)
        done = sum(map(work, first))
        scored = runner.ledger.read("scored", setup.name)
        _run(runner, setup, guarded(setup, limits(scored)), lambda more: progress.advance(done + more))
        clean = runner.ledger.read("judged", setup.name).filter(pl.col("experiment") == "clean")
        _run(runner, setup, capped(setup, _cap(clean)), lambda _: None)
    return runner.ledger


def _cap(clean: pl.DataFrame) -> int:
    """As many steps as the costliest clean image asks for."""
    return int((clean["accepted"] + clean["rejected"]).max())  # type: ignore[arg-type]


def _run(
    runner: Runner, setup: Setup, units: list[Unit] | list[Craft] | list[Judge], tell: Callable[[float], None]
) -> None:
    runner.run([(unit, work(unit)) for unit in units], tell, setup.name)
