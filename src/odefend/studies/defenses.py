"""The defenses of test time on trial: each at settings tuned on validation images, before attackers who know nothing of it, who
know a similar net, and who know it, and beside noise of the same dose and cost.

It reads from top to bottom like an experiment section. Every number of its tables comes from rows of the ledger.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from odefend.attacks import PGD, CarliniWagner
from odefend.errors import OutputError
from odefend.evaluation import Condition, Craft, Defended, Judge, Ledger, Runner, Slice, View, shards
from odefend.evaluation.adaptive import Adaptive
from odefend.evaluation.ledger import canonical, digest
from odefend.evaluation.plan import work
from odefend.evaluation.tuning import CANDIDATES, Tuning, candidates, record, tune
from odefend.evaluation.unit import Unit
from odefend.evaluation.views import as_trained, opened_net
from odefend.files import make_folder, write_json
from odefend.models import weights_digest
from odefend.progress import Progress, Silent
from odefend.version import code_version

LOUDNESS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Standard deviations of the noise beside defenses: few, so that several defenses share the attacks on one."""

VOTED = ("random-tolerance", "input-noise")
"""Random defenses of which several draws are also averaged, and voted on."""


SEARCH = CarliniWagner(steps=60, binary_search_steps=4, learning_rate=0.1, initial_constant=1.0)
IN_BALL = Adaptive(0.1)


@dataclass(frozen=True)
class Setup:
    """The size of the study. `images`, drawn by the seed `sample`, are attacked in a ball: on the bare net, on a similar one (the
    `twin`), and by the `adaptive` attacks on each defense; the first `nearest` of them by a `search` for the nearest image as well.

    Judges take `draws` of a random defense that no attack has seen, an odd number. `votes`: draws that are averaged, or voted on,
    for one answer. `loss`: of clean accuracy, what tuning may spend; a defense of which all settings cost more is tried at what
    costs least. `tuned`: clean, attacked and adaptively attacked images of a tuning.
    """

    net: str = "digits-oon"
    twin: str = "digits-res"
    data: str = "digits"
    defenses: tuple[str, ...] = tuple(CANDIDATES)
    images: int = 200
    nearest: int = 48
    adaptive: Adaptive = IN_BALL
    search: CarliniWagner = SEARCH
    draws: int = 5
    votes: int = 10
    loss: float = 0.01
    tuned: tuple[int, int, int] = (200, 100, 50)
    scales: tuple[float, ...] = (1.0, 1.1, 1.25)
    shard: int = 50
    sample: int | None = 0

    @property
    def view(self) -> View:
        """The net, at the tolerance of its training."""
        return as_trained(self.net)

    @property
    def name(self) -> str:
        """Of this size of the study, so that rows of two sizes in one folder are not mixed."""
        nets = [weights_digest(opened_net(net)) for net in (self.net, self.twin)]
        return f"defenses-{digest({'setup': repr(self), 'nets': nets, 'version': code_version()})[:8]}"

    def behind(self, defense: Defended | None, draws: int = 0) -> View:
        """The net behind a defense; None: the bare net."""
        return replace(self.view, defense=defense, draws=draws if defense else 0)

    def slices(self, count: int) -> list[Slice]:
        """Test images, in shards."""
        return shards(self.data, "test", count, self.shard, self.sample)

    def tuning(self, name: str) -> Tuning:
        """How a defense is tuned."""
        clean, attacked, answered = self.tuned
        return Tuning(
            self.view,
            self.data,
            candidates(name, self.view),
            self.search,
            self.adaptive,
            self.loss,
            clean,
            attacked,
            answered,
            self.draws,
            self.shard,
        )


SETUPS = {
    "digits": Setup(),
    "mnist": Setup(
        "mnist-oon",
        "mnist-oon-matched",
        "mnist",
        tuple(name for name in CANDIDATES if name != "random-end-time"),
        nearest=16,
        adaptive=Adaptive(0.1, steps=10, few=3, many=9),
        search=CarliniWagner(steps=40, binary_search_steps=3, learning_rate=0.1, initial_constant=1.0),
        draws=3,
        votes=4,
        tuned=(200, 50, 20),
    ),
}
"""The sizes that the study is run at."""


@dataclass(frozen=True)
class Subject:
    """A defense at its operating point, and noise of its dose and cost; `base` is that whose draws it takes, itself if none."""

    label: str
    defense: Defended
    partner: Defended | None

    @property
    def base(self) -> Defended:
        """What an attacker looks at: the mean over draws of a vote is the mean over those of its parts."""
        inner = json.loads(self.defense.settings).get("defense")
        if inner is None:
            return self.defense
        return Defended(inner["name"], canonical({key: value for key, value in inner.items() if key != "name"}))

    @property
    def pairs(self) -> list[tuple[Defended, Defended]]:
        """The defense and its partner, each with what an attacker looks at."""
        partner = [(self.partner, Subject("", self.partner, None).base)] if self.partner else []
        return [(self.defense, self.base), *partner]


def noise_like(sigma: float) -> Defended:
    """Noise of about that standard deviation: the nearest, in ratio, of LOUDNESS."""
    return Defended(
        "input-noise", canonical({"sigma": min(LOUDNESS, key=lambda one: abs(math.log(one / max(sigma, 1e-6))))})
    )


def several(how: str, defense: Defended, draws: int) -> Defended:
    """A vote on, or mean of, draws of a defense."""
    return Defended(how, canonical({"defense": {"name": defense.name} | json.loads(defense.settings), "draws": draws}))


def subjects(setup: Setup, tuned: Sequence[tuple[Defended, float]]) -> list[Subject]:
    """The defenses on trial, from the tuned ones and the noise that equals each; `input-noise` has no partner but itself."""
    found = []
    for defense, sigma in tuned:
        noise = None if defense.name == "input-noise" else noise_like(sigma)
        found.append(Subject(defense.name, defense, noise))
        if defense.name in VOTED:
            for how in ("averaged", "majority-vote"):
                partner = noise and several(how, noise, setup.votes)
                found.append(Subject(f"{defense.name}, {how}", several(how, defense, setup.votes), partner))
    return found


def oblivious(setup: Setup) -> list[Craft]:
    """Attacks on the bare net, and on its twin, by who knows of no defense."""
    how, several = setup.adaptive, setup.slices(setup.images)
    ball = PGD(how.epsilon, steps=how.steps, step_size=how.epsilon / 2, early_stop=False)
    return [
        *(Craft("plain", ball, setup.view, images) for images in several),
        *(Craft("transferred", ball, View(setup.twin), images) for images in several),
        *(Craft("plain, nearest", setup.search, setup.view, images) for images in setup.slices(setup.nearest)),
    ]


def knowing(setup: Setup, defense: Defended | None) -> list[Craft]:
    """Attacks on the net behind a defense by who knows it and not its draws; None: on the bare net."""
    found = [
        one for images in setup.slices(setup.images) for one in setup.adaptive.against(setup.view, defense, images)
    ]
    if defense is None:
        return found
    mean = setup.behind(defense, setup.adaptive.few)
    return found + [Craft("adaptive, nearest", setup.search, mean, images) for images in setup.slices(setup.nearest)]


def judged(setup: Setup, defense: Defended, base: Defended) -> list[Judge]:
    """The net behind a defense before clean images and all that was made against it."""
    view, drawn = setup.behind(defense), tuple(range(setup.draws if setup.behind(defense).random else 1))
    once = tuple(Condition(draw=draw) for draw in drawn)
    pushed = tuple(Condition(draw=draw, scale=scale) for scale in setup.scales for draw in drawn)
    return [
        *(Judge("clean", view, images, once) for images in setup.slices(setup.images)),
        *(
            Judge(unit.experiment, view, unit.images, pushed if "nearest" in unit.experiment else once, unit)
            for unit in (*oblivious(setup), *knowing(setup, base))
        ),
    ]


def bare(setup: Setup) -> list[Judge]:
    """The bare net before clean images and those of attackers who know it."""
    once = (Condition(setup.view.tolerance),)
    pushed = tuple(Condition(setup.view.tolerance, scale=scale) for scale in setup.scales)
    return [
        *(Judge("clean", setup.view, images, once) for images in setup.slices(setup.images)),
        *(
            Judge(unit.experiment, setup.view, unit.images, pushed if "nearest" in unit.experiment else once, unit)
            for unit in (*oblivious(setup), *knowing(setup, None))
        ),
    ]


def tuned(folder: Path, setup: Setup, progress: Progress, workers: int | None) -> list[tuple[Defended, float]]:
    """The operating point of each defense, and the noise that equals it; the evidence goes to `folder`/points."""
    progress.stage("tune the defenses", len(setup.defenses))
    make_folder(folder / "points")
    for done, name in enumerate(setup.defenses):
        point, found = tune(setup.tuning(name), folder, Silent(), workers)
        write_json(folder / "points" / f"{name}.json", record(setup.tuning(name), point, found))
        progress.advance(done + 1, f"{name}: {point.settings if point else 'costs too much'}")
    return points(folder, setup)


def points(folder: Path, setup: Setup) -> list[tuple[Defended, float]]:
    """What was written there; of a defense without a choice, what costs least. Raises OutputError where it is missing or
    damaged."""
    found = []
    for name in setup.defenses:
        path = folder / "points" / f"{name}.json"
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            tried = {canonical(one["defense"]["settings"]): one for one in told["tried"]}
            settings = min(tried, key=lambda one: tried[one]["lost"]["value"])
            if told["chosen"]:
                settings = canonical(told["chosen"]["settings"])
            found.append((Defended(name, settings), tried[settings]["sigma"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise OutputError(f"{path}: missing or damaged. Run the study again.") from error
    return found


def measure(folder: Path, setup: Setup, progress: Progress, workers: int | None = None) -> Ledger:
    """Do whatever is not yet in the ledger at `folder`; returns the ledger. Operating points with their evidence are written to
    `folder`/points."""
    tried = subjects(setup, tuned(folder, setup, progress, workers))
    # One defense with its noise after the other: a study that was stopped has something whole.
    groups: list[list[Unit]] = [[*oblivious(setup), *knowing(setup, None), *bare(setup)]]
    for defense, base in dict.fromkeys(pair for one in tried for pair in one.pairs):
        groups.append([*knowing(setup, base), *judged(setup, defense, base)])
    progress.stage("defenses on trial", sum(work(unit) for group in groups for unit in group))
    done = 0.0
    with Runner(folder, workers) as runner:
        for group in groups:
            _run(runner, setup, group, lambda more, done=done: progress.advance(done + more))
            done += sum(map(work, group))
    return runner.ledger


def _run(runner: Runner, setup: Setup, units: Sequence[Unit], tell: Callable[[float], None]) -> None:
    runner.run([(unit, work(unit)) for unit in units], tell, setup.name)
