"""Nets that were trained to withstand attacks, beside twins that were not: in balls under attacks of every kind, certified by
smoothing, and allowed to refuse.

It reads from top to bottom like an experiment section. Every number of its tables comes from rows of the ledger.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from odefend.attacks import PGD, PRESETS, Attack, AutoAttack
from odefend.evaluation import (
    Certify,
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
from odefend.evaluation.plan import work
from odefend.evaluation.unit import Unit
from odefend.evaluation.views import as_trained, opened_net
from odefend.models import weights_digest
from odefend.progress import Progress
from odefend.version import code_version

ALARMS = (0.01, 0.05)
"""Shares of clean images that may be refused."""


@dataclass(frozen=True)
class Smoothed:
    """A net to be certified under noise of a standard deviation, in the image or in the state."""

    net: str
    sigma: float
    where: str = "input"

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.net}, sigma {self.sigma:g} in the {'image' if self.where == 'input' else 'state'}"


@dataclass(frozen=True)
class Setup:
    """The size of the study. `nets`, the hardened beside their twins, are attacked in L-inf balls of these radii by PGD of so many
    `steps` on cross-entropy and on the margin, by Square of so many `queries`, APGD and FAB of `auto` steps (the first `thorough`
    images), and by attackers who follow other solves of an ODE net, or another net; on the first `thorough` images, by C&W in L2;
    and on the first `standard` ones, in the largest ball, by AutoAttack as it is published.

    `smoothed` are certified on `certified` images with so many `draws`, at level `alpha`. `refusing`: nets with the detector by
    which they refuse; thresholds are set on `calibration` validation images, and `refused` test images are attacked in balls of
    these `radii`. `sample`: the seed by which images are drawn from each split.
    """

    data: str
    nets: tuple[str, ...]
    smoothed: tuple[Smoothed, ...] = ()
    refusing: tuple[tuple[str, str], ...] = ()
    epsilons: tuple[float, ...] = (0.1, 0.2, 0.3)
    images: int = 200
    thorough: int = 100
    steps: int = 40
    restarts: int = 2
    auto: int = 30
    queries: int = 1000
    standard: int = 0
    certified: int = 200
    draws: int = 500
    alpha: float = 0.001
    refused: int = 100
    radii: tuple[float, ...] = (0.1, 0.2)
    calibration: int = 200
    shard: int = 50
    sample: int | None = 0

    @property
    def name(self) -> str:
        """Of this size of the study, so that rows of two sizes in one folder are not mixed."""
        names = (*self.nets, *(one.net for one in self.smoothed), *(net for net, _ in self.refusing))
        nets = {net: weights_digest(opened_net(net)) for net in names}
        return f"hardened-{digest({'setup': repr(self), 'nets': nets, 'version': code_version()})[:8]}"

    def slices(self, count: int, split: str = "test") -> list[Slice]:
        """Images of a split, in shards."""
        return shards(self.data, split, count, self.shard, self.sample)


SETUPS = {
    "digits": Setup(
        "digits",
        ("digits-oon-adversarial", "digits-oon", "digits-res-adversarial", "digits-res"),
        (
            Smoothed("digits-oon-noise", 0.25),
            Smoothed("digits-oon", 0.25),
            Smoothed("digits-res-noise", 0.25),
            Smoothed("digits-oon-state-noise", 0.5, "state"),
            Smoothed("digits-oon", 0.5, "state"),
        ),
        (
            ("digits-oon-ccat", "confidence"),
            ("digits-res-ccat", "confidence"),
            ("digits-oon-adversarial", "one-pass-margin"),
            ("digits-res-adversarial", "one-pass-margin"),
            ("digits-oon", "one-pass-margin"),
        ),
        thorough=100,
    ),
    "mnist": Setup(
        "mnist",
        ("mnist-mix-adversarial", "mnist-mix", "mnist-mix-matched-adversarial", "mnist-mix-matched"),
        (Smoothed("mnist-mix-noise", 0.5), Smoothed("mnist-mix", 0.5)),
        thorough=32,
        standard=32,
        restarts=1,
        certified=100,
    ),
}
"""The sizes that the study is run at."""


def tried(setup: Setup) -> tuple[str, ...]:
    """What every net meets in a ball, in the order of tables."""
    return ("PGD", "PGD, margin", "adaptive", *(("Square", "APGD and FAB") if setup.thorough else ()))


def attacks(setup: Setup, epsilon: float) -> tuple[tuple[str, Attack, int], ...]:
    """The attacks by a net's own answers: name, attack, and on how many images."""
    pgd = PGD(epsilon, steps=setup.steps, restarts=setup.restarts)
    ours = (("PGD", pgd, setup.images), ("PGD, margin", replace(pgd, loss="margin"), setup.images))
    if not setup.thorough:  # Only the others need pyautoattack.
        return ours
    auto = AutoAttack(epsilon, steps=setup.auto, queries=setup.queries)
    # The parts of AutoAttack, as long as the setup says.
    return (
        *ours,
        ("Square", replace(auto, attacks=("square",)), setup.thorough),
        ("APGD and FAB", replace(auto, attacks=("apgd-ce", "apgd-t", "fab-t")), setup.thorough),
    )


def sources(setup: Setup, net: str) -> list[View]:
    """Whose gradients one follows who suspects those of a net of leading nowhere: tighter and looser solves, fixed steps, another
    net."""
    own = as_trained(net)
    others = [as_trained(other) for other in setup.nets if other != net]
    if own.tolerance is None:
        return others[:1]
    return [
        replace(own, tolerance=1e-5),
        replace(own, tolerance=1e-1),
        replace(own, method="rk4", step=0.1),
        *others[:1],
    ]


def in_balls(setup: Setup) -> list[Craft]:
    """Every attack on every net at every radius."""
    found = []
    for net in setup.nets:
        for epsilon in setup.epsilons:
            for name, attack, count in attacks(setup, epsilon):
                found += [Craft(name, attack, as_trained(net), images) for images in setup.slices(count)]
            blind = PGD(epsilon, steps=setup.steps // 2)
            found += [
                Craft("adaptive", blind, as_trained(net), images, source)
                for source in sources(setup, net)
                for images in setup.slices(setup.images)
            ]
    return found


def nearest(setup: Setup) -> list[Craft]:
    """How far C&W (arXiv 1608.04644), which knows no ball, moves the images that break a net."""
    if not setup.thorough:
        return []
    search = PRESETS[f"{setup.data}-l2"].attack
    return [
        Craft("C&W", search, as_trained(net), images) for net in setup.nets for images in setup.slices(setup.thorough)
    ]


def by_autoattack(setup: Setup) -> list[Craft]:
    """The standard version of AutoAttack, to stand beside what is published of other nets."""
    return [
        Craft("AutoAttack", AutoAttack(max(setup.epsilons)), as_trained(net), images)
        for net in setup.nets
        for images in setup.slices(setup.standard)
    ]


def clean(setup: Setup) -> list[Judge]:
    """Every net before clean images."""
    return [
        Judge("clean", as_trained(net), images, (Condition(as_trained(net).tolerance),))
        for net in dict.fromkeys((*setup.nets, *(net for net, _ in setup.refusing)))
        for images in setup.slices(setup.images)
    ]


def certificates(setup: Setup) -> list[Certify]:
    """What smoothing proves."""
    return [
        Certify(
            one.label,
            replace(
                as_trained(one.net), defense=Defended("smoothing", canonical({"sigma": one.sigma, "where": one.where}))
            ),
            images,
            draws=setup.draws,
            alpha=setup.alpha,
        )
        for one in setup.smoothed
        for images in setup.slices(setup.certified)
    ]


def screens(setup: Setup) -> list[Screen]:
    """Clean images before the detectors by which nets refuse."""
    images = [*setup.slices(setup.calibration, "validation"), *setup.slices(max(setup.images, setup.refused))]
    return [Screen("clean", as_trained(net), some, Watch(name)) for net, name in setup.refusing for some in images]


def past_refusal(setup: Setup, limits: dict[tuple[str, float], tuple[float, float]]) -> list[Craft]:
    """Attacks on net and refusal together; `limits`: threshold and scale by net and alarms."""
    return [
        Craft(
            refusal(way, allowed),
            attack,
            as_trained(net),
            images,
            guard=Guarded(Watch(name), *limits[net, allowed], "joint" if way == "joint" else "selective"),
        )
        for net, name in setup.refusing
        for epsilon in setup.radii
        for allowed in ALARMS
        for way, attack in attacks_past_refusal(setup, epsilon).items()
        for images in setup.slices(setup.refused)
    ]


def attacks_past_refusal(setup: Setup, epsilon: float) -> dict[str, PGD]:
    """The attacks on net and refusal by what is peculiar to each: how the gradients are joined, or small steps with momentum on
    the margin from the clean image, which come farther where a net was trained to be unsure away from it."""
    usual = PGD(epsilon, steps=setup.steps, restarts=setup.restarts)
    steps = 5 * setup.steps // 2
    small = PGD(epsilon, steps=steps, step_size=2.5 * epsilon / steps, loss="margin", momentum=0.9, random_start=False)
    return {"selective": usual, "joint": usual, "small steps": small}


def refusal(way: str, allowed: float) -> str:
    """The experiment of an attack on net and refusal."""
    return f"refusal, {way}, {allowed:g}"


def limits(setup: Setup, scored: pl.DataFrame) -> dict[tuple[str, float], tuple[float, float]]:
    """(threshold, scale) of each refusing net for each share of alarms, from the scores of calibration images; the scale is their
    spread between the 5th and the 95th percentile."""
    found = {}
    for net, name in setup.refusing:
        rows = scored.filter((pl.col("net") == net) & (pl.col("detector") == name))
        held_out = rows.filter(pl.col("kind") == "calibration")["score"]
        low, high = (float(held_out.quantile(share) or 0.0) for share in (0.05, 0.95))
        for allowed in ALARMS:
            found[net, allowed] = (threshold(rows, name, allowed), max(high - low, 1e-3))
    return found


def measure(folder: Path, setup: Setup, progress: Progress, workers: int | None = None) -> Ledger:
    """Do whatever is not yet in the ledger at `folder`; returns the ledger."""
    guess = dict.fromkeys(((net, allowed) for net, _ in setup.refusing for allowed in ALARMS), (0.0, 1.0))
    # What is cheap first: a study that was stopped has something of everything.
    first: list[Unit] = [*clean(setup), *screens(setup), *certificates(setup)]
    second: list[Unit] = [*nearest(setup), *in_balls(setup), *by_autoattack(setup)]
    done = sum(map(work, first))
    progress.stage("hardened nets", done + sum(map(work, [*second, *past_refusal(setup, guess)])))
    with Runner(folder, workers) as runner:
        _run(runner, setup, first, progress.advance)
        third = past_refusal(setup, limits(setup, runner.ledger.read("scored", setup.name)))
        _run(runner, setup, third, lambda more: progress.advance(done + more))
        done += sum(map(work, third))
        _run(runner, setup, second, lambda more: progress.advance(done + more))
    return runner.ledger


def _run(runner: Runner, setup: Setup, units: Sequence[Unit], tell: Callable[[float], None]) -> None:
    runner.run([(unit, work(unit)) for unit in units], tell, setup.name)
