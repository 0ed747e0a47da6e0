"""The detectors on trial: against C&W that knows nothing of them, pushed on, and against C&W and PGD that know each.

It reads from top to bottom like an experiment section. Every number of its tables comes from rows of the ledger.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import polars as pl

from odefend.attacks import PGD, Attack, CarliniWagner, named_attack
from odefend.detectors import DETECTORS, setting_types
from odefend.evaluation import Craft, Guarded, Ledger, Runner, Screen, Slice, View, Watch, shards
from odefend.evaluation.detection import threshold
from odefend.evaluation.ledger import digest
from odefend.evaluation.plan import work
from odefend.evaluation.unit import Unit
from odefend.evaluation.views import opened_net
from odefend.models import ODENet
from odefend.norms import L2
from odefend.progress import Progress
from odefend.version import code_version

TOLERANCE = 1e-3
ALARMS = (0.01, 0.05)
"""Shares of clean images that a detector may refuse."""
BENIGN = ("jpeg-75-444", "blur-0.5", "gamma-0.8")
"""What happens to pictures in everyday use, which is no attack."""
SEARCH = CarliniWagner(steps=60, binary_search_steps=4, learning_rate=0.1, initial_constant=1.0)


@dataclass(frozen=True)
class Setup:
    """The size of the study: clean test images, of which `benign` are also changed as in everyday use, how many are attacked by
    one who knows nothing, and by one who knows, in a ball and (`nearest`) without limit; validation images that thresholds
    are set on; training images that detectors learn from, of which `attacked` are shown to those that are supervised, attacked
    by PGD in an L2 ball of radius `shown`: an attack they are not tried on.

    `aims`: which of the ALARMS an attacker who knows gets past; what gets past more alarms also gets past fewer. `ways`: how
    PGD joins the gradients of net and detector; C&W does it selectively (see `attacks.Guard`). `sample`: the seed by which images
    are drawn from each split.
    """

    net: str = "digits-oon"
    data: str = "digits"
    detectors: tuple[tuple[str, str], ...] = ()
    clean: int = 500
    benign: int = 100
    images: int = 300
    knowing: int = 100
    nearest: int = 100
    calibration: int = 200
    learn: int = 1000
    attacked: int = 300
    shard: int = 50
    sample: int | None = 0
    shown: float = 1.0
    epsilon: float = 0.1
    scales: tuple[float, ...] = (1.0, 1.05, 1.1, 1.25)
    search: CarliniWagner = SEARCH
    steps: int = 40
    restarts: int = 2
    ways: tuple[str, ...] = ("selective", "joint")
    aims: tuple[float, ...] = ALARMS

    @property
    def view(self) -> View:
        """The net, at the tolerance of its training if it has a solver."""
        return View(self.net, TOLERANCE if isinstance(opened_net(self.net), ODENet) else None)

    @property
    def name(self) -> str:
        """Of this size of the study, so that rows of two sizes in one folder are not mixed."""
        return f"detectors-{digest({'setup': repr(self), 'version': code_version()})[:8]}"

    def slices(self, count: int, split: str = "test") -> list[Slice]:
        """Images of a split, in shards."""
        return shards(self.data, split, count, self.shard, self.sample)

    def watches(self) -> list[Watch]:
        """The detectors, those that learn with what they learn from."""
        shown = tuple(unit.key for unit in lessons(self))
        learn = Slice(self.data, "train", 0, self.learn, sample=self.sample)
        return [
            Watch(name, settings, learn, shown if DETECTORS[name].supervised else (), label(name, settings))
            for name, settings in self.detectors
        ]


EVERY = (
    ("one-pass-margin", "{}"),
    ("confidence", "{}"),
    ("entropy", "{}"),
    ("energy", "{}"),
    ("noise-drop", '{"sigma": 0.02, "draws": 19}'),
    ("noise-drop", '{"sigma": 0.1, "draws": 19}'),
    ("feature-squeezing", "{}"),
    ("tolerance-vote", '{"votes": 20}'),
    ("tolerance-drop", "{}"),
    ("logit-spread", "{}"),
    ("embedded-error", "{}"),
    ("step-trace", "{}"),
    ("principal-components", "{}"),
    ("separate-network", "{}"),
    ("reconstruction-error", "{}"),
    ("purification-change", "{}"),
    ("flow-likelihood", "{}"),
    ("flow-latent", "{}"),
    ("flow-latent", '{"levels": "all"}'),
)
"""Noise of as many passes as a vote: what a vote over tolerances has to beat."""
OF_SOLVER = tuple(one for one in EVERY if DETECTORS[one[0]].of_solver)
OF_ANY_NET = tuple(one for one in EVERY if not DETECTORS[one[0]].of_solver)

SETUPS = {
    "digits": Setup(detectors=EVERY, knowing=50, nearest=20),
    "matched": Setup("digits-res", detectors=OF_ANY_NET, knowing=50, nearest=20),
    "mnist": Setup(
        "mnist-oon",
        "mnist",
        (("one-pass-margin", "{}"), ("noise-drop", '{"sigma": 0.1, "draws": 19}'), *OF_SOLVER),
        nearest=8,
        calibration=500,
        learn=500,
        shard=25,
        search=cast(CarliniWagner, named_attack("mnist-l2")),
        steps=30,
        restarts=1,
        ways=("selective",),
        aims=(0.05,),
    ),
}
"""The sizes that the study is run at: every detector on digits, those that need no solver on the matched net without one, and
those that watch the solver on MNIST, beside margin and noise."""


def label(name: str, settings: str) -> str:
    """What tables call a detector: with those of its settings that are not the usual ones."""
    said = ", ".join(
        f"{key} {value}" if isinstance(value, str) else f"{key} {value:g}"
        for key, value in json.loads(settings).items()
    )
    return f"{name}, {said}" if said else name


def lessons(setup: Setup) -> list[Craft]:
    """Attacked training images, for supervised detectors: by PGD in an L2 ball, which is not tried on them."""
    if not any(DETECTORS[name].supervised for name, _ in setup.detectors):
        return []
    shown = PGD(setup.shown, L2, steps=setup.steps, early_stop=False)
    return [Craft("lessons", shown, setup.view, images) for images in setup.slices(setup.attacked, "train")]


def fresh(watch: Watch) -> Watch | None:
    """The same detector with draws that no attack has seen; None for one that draws nothing. A search keeps the image that
    happened to suit the draws it was confirmed by."""
    given, settings = setting_types(DETECTORS[watch.detector]), json.loads(watch.settings)
    if DETECTORS[watch.detector].learns:
        return None
    if "defense" in given:
        settings["defense"] = settings.get("defense", {}) | {"seed": 1000}
    elif "seed" in given:
        settings["seed"] = 1000
    else:
        return None
    return replace(watch, settings=json.dumps(settings), label=f"{watch.name}, fresh")


def attacks(setup: Setup) -> tuple[tuple[str, Attack], ...]:
    """What is tried: the nearest image, and one in a ball."""
    return ("C&W", setup.search), ("PGD", PGD(setup.epsilon, steps=setup.steps, restarts=setup.restarts))


def unknowing(setup: Setup) -> list[Craft]:
    """Attacks that know nothing of a detector."""
    return [
        Craft(f"plain {name}", attack, setup.view, images)
        for name, attack in attacks(setup)
        for images in setup.slices(setup.images)
    ]


def screens(setup: Setup) -> list[Screen]:
    """Clean images and those of attackers who know nothing, C&W's also pushed on, before every detector."""
    clean = [*setup.slices(setup.calibration, "validation"), *setup.slices(max(setup.clean, setup.images))]
    return [
        *(Screen("clean", setup.view, images, watch) for watch in setup.watches() for images in clean),
        *(
            Screen(change, setup.view, replace(images, changed=change), watch)
            for watch in setup.watches()
            for change in BENIGN
            for images in setup.slices(setup.benign)
        ),
        *(
            Screen(
                unit.experiment,
                setup.view,
                unit.images,
                watch,
                unit,
                setup.scales if unit.experiment == "plain C&W" else (1.0,),
            )
            for watch in setup.watches()
            for unit in unknowing(setup)
        ),
    ]


def knowing(setup: Setup, limits: dict[tuple[str, float], tuple[float, float]]) -> list[Craft]:
    """The same attacks, knowing each detector and its threshold; `limits`: threshold and scale by detector and alarms. The way
    that works best differs by detector, so PGD, which is cheap, tries several."""
    count = {"C&W": setup.nearest, "PGD": setup.knowing}
    return [
        Craft(
            known(name, way, watch.name, allowed),
            attack,
            setup.view,
            images,
            guard=Guarded(watch, *limits[watch.name, allowed], way),
        )
        for name, attack in attacks(setup)
        for watch in setup.watches()
        for allowed in setup.aims
        for way in (setup.ways if name == "PGD" else ("selective",))
        for images in setup.slices(count[name])
    ]


def known(attack: str, way: str, detector: str, allowed: float) -> str:
    """The experiment of an attack that knows a detector."""
    return f"knowing {attack}, {way}: {detector}, {allowed:g}"


def shown_again(setup: Setup, crafted: Sequence[Craft]) -> list[Screen]:
    """What knowing attacks made, before the same detector with other draws."""
    return [
        Screen(unit.experiment, setup.view, unit.images, watch, unit)
        for unit in crafted
        if unit.guard and (watch := fresh(unit.guard.watch))
    ]


def limits(setup: Setup, scored: pl.DataFrame) -> dict[tuple[str, float], tuple[float, float]]:
    """(threshold, scale) of each detector for each share of alarms, from the scores of calibration images; the scale is their
    spread between the 5th and the 95th percentile, which no single image decides."""
    found = {}
    for watch in setup.watches():
        rows = scored.filter((pl.col("detector") == watch.name) & (pl.col("kind") == "calibration"))
        low, high = (float(rows["score"].quantile(share) or 0.0) for share in (0.05, 0.95))
        for allowed in ALARMS:
            found[watch.name, allowed] = (threshold(scored, watch.name, allowed), max(high - low, 1e-3))
    return found


def measure(folder: Path, setup: Setup, progress: Progress, workers: int | None = None) -> Ledger:
    """Do whatever is not yet in the ledger at `folder`; returns the ledger."""
    guess = dict.fromkeys(((watch.name, allowed) for watch in setup.watches() for allowed in ALARMS), (0.0, 1.0))
    first, last = [*lessons(setup), *unknowing(setup), *screens(setup)], knowing(setup, guess)
    done = sum(map(work, first))
    progress.stage("detectors on trial", done + sum(map(work, last)))
    with Runner(folder, workers) as runner:
        _run(runner, setup, first, progress.advance)
        scored = runner.ledger.read("scored", setup.name)
        crafted = knowing(setup, limits(setup, scored))
        # What is cheap first: a study that was stopped has something of every detector.
        for units in [
            some for name in ("PGD", "C&W") if (some := [unit for unit in crafted if name in unit.experiment])
        ]:
            _run(runner, setup, units, lambda more, done=done: progress.advance(done + more))
            _run(runner, setup, shown_again(setup, units), lambda _: None)
            done += sum(map(work, units))
    return runner.ledger


def _run(runner: Runner, setup: Setup, units: Sequence[Unit], tell: Callable[[float], None]) -> None:
    runner.run([(unit, work(unit)) for unit in units], tell, setup.name)
