"""Choosing a defense's settings on validation images: what they cost clean images, what adaptive attacks leave, and what they win
back from an attack that knows nothing of them, beside noise that changes clean answers as much."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from odefend.attacks import Attack
from odefend.defenses.candidates import CANDIDATES
from odefend.dose import matched_sigma
from odefend.errors import InvalidInput, unknown
from odefend.evaluation.adaptive import Adaptive, under_fresh_draws
from odefend.evaluation.craft import Craft
from odefend.evaluation.judge import Condition, Judge
from odefend.evaluation.ledger import canonical, digest
from odefend.evaluation.plan import work
from odefend.evaluation.runner import Runner
from odefend.evaluation.unit import Unit
from odefend.evaluation.views import Defended, View, shards
from odefend.intervals import Interval, mean, mean_difference
from odefend.models import ODENet
from odefend.progress import Progress
from odefend.version import code_version

NOISE = (0.003, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Standard deviations of the noise that is set beside a defense."""


@dataclass(frozen=True)
class Tuning:
    """How settings are chosen: among `candidates`, that after which most validation images are right before the `adaptive` attacks
    on it, at the cost of at most `loss` of the share of clean images that are right.

    `images` clean ones; the first `attacked` of them are attacked by `attack`, which knows nothing of the defense, the first
    `answered` by the `adaptive` attacks. Judged under `draws` draws that no attack has seen.
    """

    view: View
    data: str
    candidates: tuple[Defended, ...]
    attack: Attack
    adaptive: Adaptive
    loss: float = 0.01
    images: int = 300
    attacked: int = 100
    answered: int = 50
    draws: int = 5
    shard: int = 50
    split: str = "validation"

    def __post_init__(self) -> None:
        if not 0 <= self.loss < 1:
            raise InvalidInput(f"loss: expected a share of clean images in [0, 1), got {self.loss}.")

    @property
    def name(self) -> str:
        """Of these settings, so that rows of two in one folder are not mixed."""
        nets = [self.behind(one).identity() for one in self.candidates]
        return f"tuning-{digest({'tuning': repr(self), 'nets': nets, 'version': code_version()})[:8]}"

    @property
    def noises(self) -> tuple[Defended, ...]:
        """What the candidates are set beside."""
        return tuple(Defended("input-noise", canonical({"sigma": sigma})) for sigma in NOISE)

    def behind(self, defense: Defended) -> View:
        """The net behind a defense."""
        return replace(self.view, defense=defense)


@dataclass(frozen=True)
class Tried:
    """Validation results of one candidate: shares in [0, 1], with intervals.

    `clean`: of clean images that are right; `lost`: how much less that is than without a defense; `won`: of the images that the
    attack broke, those that are right again; `sigma`: noise that changes clean margins as much, the loudest of NOISE where none
    does; `noise_won`: what noise wins back, by interpolation; `robust`: of all images, those that are right before the adaptive
    attacks, by `under_fresh_draws`; None: not measured, since it costs too much.
    """

    defense: Defended
    clean: Interval
    lost: Interval
    won: Interval
    sigma: float
    noise_won: float
    admissible: bool
    robust: Interval | None = None


def candidates(name: str, view: View) -> tuple[Defended, ...]:
    """The settings of a defense of a net that are tried by themselves. Raises UnknownName for one that has none."""
    if name not in CANDIDATES:
        raise unknown("defense to tune", name, CANDIDATES)
    tried, net = CANDIDATES[name], view.solved()
    if name.endswith("end-time") and isinstance(net, ODENet) and isinstance(net.settings.t1, float):
        tried = tuple({key: part * net.settings.t1 for key, part in settings.items()} for settings in tried)
    return tuple(Defended(name, canonical(settings)) for settings in tried)


def tune(
    tuning: Tuning, folder: Path, progress: Progress, workers: int | None = None
) -> tuple[Defended | None, list[Tried]]:
    """The chosen candidate, None where each costs too much, and what came of all. What is in the ledger at `folder` is not done
    again."""
    with Runner(folder, workers) as runner:
        first = _first(tuning)
        half = sum(map(work, first))
        progress.stage("tune", half + sum(map(work, _responses(tuning, tuning.candidates))))
        _run(runner, tuning, first, progress.advance)
        found = _tried(tuning, runner)
        second = _responses(tuning, [one.defense for one in found if one.admissible])
        _run(runner, tuning, second, lambda done: progress.advance(half + done))
        found = [_answered(tuning, runner, one) if one.admissible else one for one in found]
    return chosen(found), found


def chosen(found: Sequence[Tried]) -> Defended | None:
    """The most robust of those that cost no more than allowed; of equals, that which costs least."""
    allowed = [(one.robust.value, one.clean.value, one.defense) for one in found if one.admissible and one.robust]
    return max(allowed, key=lambda one: one[:2])[2] if allowed else None


def _drawn(tuning: Tuning, defense: Defended) -> range:
    """Numbers of the draws that a net behind a defense is judged under."""
    return range(tuning.draws if tuning.behind(defense).random else 1)


def _first(tuning: Tuning) -> list[Unit]:
    """Clean images, and those of an attacker who knows nothing, before every candidate and every noise."""
    bare = (Condition(tuning.view.tolerance),)
    drawn = {one: tuple(Condition(draw=draw) for draw in _drawn(tuning, one)) for one in _all(tuning)}
    units: list[Unit] = []
    for images in shards(tuning.data, tuning.split, tuning.images, tuning.shard):
        units.append(Judge("clean", tuning.view, images, bare))
        units += [Judge("clean", tuning.behind(one), images, drawn[one]) for one in _all(tuning)]
    for images in shards(tuning.data, tuning.split, tuning.attacked, tuning.shard):
        craft = Craft("plain", tuning.attack, tuning.view, images)
        units.append(craft)
        units += [Judge("plain", tuning.behind(one), images, drawn[one], craft) for one in _all(tuning)]
    return units


def _all(tuning: Tuning) -> list[Defended]:
    return list(dict.fromkeys((*tuning.candidates, *tuning.noises)))


def _responses(tuning: Tuning, defenses: Sequence[Defended]) -> list[Unit]:
    """The adaptive attacks on each of these, and their judgement."""
    units: list[Unit] = []
    for images in shards(tuning.data, tuning.split, tuning.answered, tuning.shard):
        for one in defenses:
            conditions = tuple(Condition(draw=draw) for draw in _drawn(tuning, one))
            made = tuning.adaptive.against(tuning.view, one, images)
            units += made
            units += [Judge("adaptive", tuning.behind(one), images, conditions, craft) for craft in made]
    return units


def _run(runner: Runner, tuning: Tuning, units: Sequence[Unit], tell: Callable[[float], None]) -> None:
    runner.run([(unit, work(unit)) for unit in units], tell, tuning.name)


def _tried(tuning: Tuning, runner: Runner) -> list[Tried]:
    """What is known of each candidate before anyone responds to it."""
    judged = runner.ledger.read("judged", tuning.name)
    clean = _by_image(judged.filter(pl.col("experiment") == "clean"))
    plain = _by_image(judged.filter((pl.col("experiment") == "plain") & pl.col("attack_success")))
    bare = clean.filter(pl.col("settings").is_null()).select("image", base="correct", still="true_margin")
    doses = {
        row["settings"]: row["dose"]
        for row in judged.filter((pl.col("experiment") == "clean") & pl.col("settings").is_not_null())
        .join(bare, on="image")
        .group_by("settings")
        .agg(dose=(pl.col("true_margin") - pl.col("still")).abs().median())
        .to_dicts()
    }
    noise = {sigma: doses[one.text] for sigma, one in zip(NOISE, tuning.noises, strict=True)}
    won = [mean(_of(plain, one.text)["correct"].to_numpy()).value for one in tuning.noises]
    found = []
    for one in tuning.candidates:
        mine = _of(clean, one.text).join(bare, on="image")
        right, lost = (
            mean(mine["correct"].to_numpy()),
            mean_difference(mine["base"].to_numpy(), mine["correct"].to_numpy()),
        )
        sigma = matched_sigma(doses[one.text], noise)
        by_noise = float(np.interp(sigma, (0.0, *NOISE), (0.0, *won)))
        back = mean(_of(plain, one.text)["correct"].to_numpy())
        found.append(Tried(one, right, lost, back, sigma, by_noise, lost.value <= tuning.loss))
    return found


def _answered(tuning: Tuning, runner: Runner, tried: Tried) -> Tried:
    """The same with what the adaptive attacks leave."""
    judged = runner.ledger.read("judged", tuning.name).filter(pl.col("experiment") == "adaptive")
    right = under_fresh_draws(judged.filter(pl.col("settings") == tried.defense.text))
    return replace(tried, robust=mean(right["right"].to_numpy()))


def _of(rows: pl.DataFrame, settings: str) -> pl.DataFrame:
    return rows.filter(pl.col("settings") == settings).sort("image")


def _by_image(judged: pl.DataFrame) -> pl.DataFrame:
    """One row per image and defense: the mean over draws."""
    return judged.group_by("settings", "image", maintain_order=True).agg(
        pl.col("correct").cast(pl.Float64).mean(), pl.col("true_margin").mean()
    )


def record(tuning: Tuning, point: Defended | None, found: Sequence[Tried]) -> dict[str, Any]:
    """The choice with its evidence, as JSON would have it."""
    return {
        "net": tuning.view.record()["net"],
        "net_digest": tuning.view.record()["net_digest"],
        "data": tuning.data,
        "split": tuning.split,
        "chosen": point and {"name": point.name, "settings": json.loads(point.settings)},
        "loss": tuning.loss,
        "attack": tuning.attack.record(),
        "adaptive": asdict(tuning.adaptive) | {"draws": tuning.draws},
        "images": {
            name: _count(tuning, asked)
            for name, asked in (("clean", tuning.images), ("attacked", tuning.attacked), ("answered", tuning.answered))
        },
        "code_version": code_version(),
        "tried": [_told(one) for one in found],
    }


def _count(tuning: Tuning, asked: int) -> int:
    """How many images there are, of so many."""
    return sum(some.stop - some.start for some in shards(tuning.data, tuning.split, asked, tuning.shard))


def _told(tried: Tried) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for key, value in vars(tried).items():
        if isinstance(value, Defended):
            told[key] = {"name": value.name, "settings": json.loads(value.settings)}
        else:
            told[key] = vars(value) if isinstance(value, Interval) else value
    return told
