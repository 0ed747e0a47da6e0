"""The defenses of test time on trial: each at settings tuned on validation images, before attackers who know nothing of it, who
know a similar net, and who know it, and beside noise of the same dose and cost.

It reads from top to bottom like an experiment section. Every number of its tables comes from rows of the ledger.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from odefend.attacks import PGD, Attack, CarliniWagner
from odefend.errors import OutputError
from odefend.evaluation import Condition, Craft, Defended, Judge, Ledger, Runner, Slice, View, shards
from odefend.evaluation.ledger import canonical, digest
from odefend.evaluation.plan import work
from odefend.evaluation.tuning import CANDIDATES, Tuning, candidates, record, tune
from odefend.evaluation.unit import Unit
from odefend.evaluation.views import as_trained, opened_net
from odefend.files import make_folder, write_json
from odefend.models import weights_digest
from odefend.norms import LINF
from odefend.progress import Progress, Silent
from odefend.version import code_version

LOUDNESS = (0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
"""Standard deviations of the noise beside defenses, of which one is no more than 30 % from that of equal dose, within their range,
so that several defenses share an attack on one."""

VOTED = ("random-tolerance", "input-noise")
"""Random defenses of which several draws are also averaged, and voted on."""


SEARCH = CarliniWagner(steps=60, binary_search_steps=4, learning_rate=0.1, initial_constant=1.0)


@dataclass(frozen=True)
class Setup:
    """The size of the study. `images` are attacked in a ball of radius `epsilon` by PGD of so many `steps`, the first `nearest` of
    them by a `search` for the nearest image. `twin`: the net that is attacked for images that transfer.

    An attacker who knows a random defense follows the mean of `searched` draws. All leap as well, by steps as long as the radius
    from so many starts (`leaps`), which come over what is flat; where there are draws, on the first `followed` images, on which
    they also follow `many` of them, to see whether fewer were too few. Judges take `draws` of their own, an odd number.
    `margin`: whether PGD on the margin is tried as well, which is dear. `votes`: draws that are averaged, or voted on, for one
    answer. `loss`: of clean accuracy, what tuning may spend; a defense of which all settings cost more is tried at what costs
    least. `tuned`: clean, attacked and answered images of a tuning, and its draws. `sample`: the seed by which
    images are drawn.
    """

    net: str = "digits-oon"
    twin: str = "digits-res"
    data: str = "digits"
    defenses: tuple[str, ...] = tuple(CANDIDATES)
    images: int = 200
    nearest: int = 48
    epsilon: float = 0.1
    steps: int = 40
    search: Attack = SEARCH
    searched: int = 4
    many: int = 16
    followed: int = 100
    leaps: int = 10
    draws: int = 3
    votes: int = 10
    loss: float = 0.01
    margin: bool = True
    tuned: tuple[int, int, int, int] = (300, 100, 50, 3)
    scales: tuple[float, ...] = (1.0, 1.1, 1.25, 1.5, 2.0)
    shard: int = 50
    sample: int | None = 0

    @property
    def view(self) -> View:
        """The net, at the tolerance of its training."""
        return as_trained(self.net)

    @property
    def ball(self) -> PGD:
        """The attack in a ball."""
        return PGD(self.epsilon, LINF, steps=self.steps)

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
        images, attacked, answered, drawn = self.tuned
        return Tuning(
            self.view,
            self.data,
            candidates(name, self.view),
            self.search,
            replace(self.ball, steps=self.steps // 2),
            self.loss,
            images,
            attacked,
            answered,
            self.searched,
            drawn,
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
        steps=10,
        search=CarliniWagner(steps=40, binary_search_steps=3, learning_rate=0.1, initial_constant=1.0),
        searched=3,
        many=9,
        followed=48,
        leaps=2,
        votes=4,
        margin=False,
        tuned=(200, 50, 20, 2),
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


def unknowing(setup: Setup) -> list[Craft]:
    """Attacks on the bare net, and on its twin."""
    whole = replace(setup.ball, early_stop=False)
    return [
        *(Craft("plain", whole, setup.view, images) for images in setup.slices(setup.images)),
        *(Craft("transferred", whole, View(setup.twin), images) for images in setup.slices(setup.images)),
        *(Craft("plain, nearest", setup.search, setup.view, images) for images in setup.slices(setup.nearest)),
    ]


def knowing(setup: Setup, defense: Defended | None) -> list[Craft]:
    """Attacks on the net behind a defense: by one draw's gradient or the only one there is (white-box); by the mean of several
    draws', by the margin for a loss, and by the gradient of the bare net, in case the defense's own is of no use (adaptive). None:
    those on the bare net that `unknowing` has not."""
    single, mean, random = setup.behind(defense, 1), setup.behind(defense, setup.searched), setup.behind(defense).random
    # Where it will meet other draws, an image just beyond the border is not enough.
    ball = replace(setup.ball, early_stop=not random)
    other = replace(ball, loss="margin", steps=setup.steps // 2)
    leaping = replace(ball, loss="margin", steps=25, step_size=setup.epsilon, restarts=setup.leaps)
    images, followed, nearest = (setup.slices(count) for count in (setup.images, setup.followed, setup.nearest))
    found = [Craft("adaptive, margin", other, mean, some) for some in images if setup.margin]
    found += [Craft("adaptive, leaps", leaping, mean, some) for some in (followed if random else images)]
    if defense is None:
        return found
    return [
        *(Craft("white-box", ball, single, some) for some in images),
        *(Craft("adaptive", ball, mean, some) for some in images if random),
        *found,
        *(Craft("adaptive, bare", ball, mean, some, setup.view) for some in images),
        *(Craft("adaptive, nearest", setup.search, mean, some) for some in nearest),
        *(Craft("more draws", ball, setup.behind(defense, setup.many), some) for some in followed if random),
    ]


def judged(setup: Setup, defense: Defended, base: Defended) -> list[Judge]:
    """The net behind a defense before clean images and all that was made against it."""
    view, drawn = setup.behind(defense), tuple(range(setup.draws if setup.behind(defense).random else 1))
    once = tuple(Condition(draw=draw) for draw in drawn)
    pushed = tuple(Condition(draw=draw, scale=scale) for scale in setup.scales for draw in drawn)
    return [
        *(Judge("clean", view, images, once) for images in setup.slices(setup.images)),
        *(
            Judge(unit.experiment, view, unit.images, pushed if "nearest" in unit.experiment else once, unit)
            for unit in (*unknowing(setup), *knowing(setup, base))
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
            for unit in (*unknowing(setup), *knowing(setup, None))
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
    groups: list[list[Unit]] = [[*unknowing(setup), *knowing(setup, None), *bare(setup)]]
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
