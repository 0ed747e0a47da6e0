"""Choosing a defense's settings on validation images: what they cost clean images, what they win back, and what an attacker who
knows them does about it, beside noise that changes clean answers as much."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from odefend.attacks import BIM, PGD, Attack
from odefend.errors import InvalidInput, unknown
from odefend.evaluation.controls import matched_sigma
from odefend.evaluation.craft import Craft
from odefend.evaluation.judge import Condition, Judge
from odefend.evaluation.ledger import canonical, digest
from odefend.evaluation.plan import work
from odefend.evaluation.robustness import attacked, fooled
from odefend.evaluation.runner import Runner
from odefend.evaluation.unit import Unit
from odefend.evaluation.views import Defended, View, shards
from odefend.intervals import Interval, mean, mean_difference
from odefend.models import ODENet
from odefend.progress import Progress
from odefend.version import code_version

CANDIDATES: Mapping[str, tuple[dict[str, Any], ...]] = {
    "tolerance": tuple({"tolerance": value} for value in (1e-5, 1e-2, 1e-1, 1.0, 10.0)),
    "random-tolerance": tuple(
        {"distribution": {"low": low, "high": high}} for low, high in ((1e-5, 1e-1), (1e-4, 1.0), (1e-3, 10.0))
    ),
    "end-time": tuple({"t1": end} for end in (0.8, 0.9, 1.1, 1.25, 1.5)),
    "random-end-time": tuple({"low": low, "high": high} for low, high in ((0.9, 1.1), (0.75, 1.25), (0.5, 1.5))),
    "input-noise": tuple({"sigma": sigma} for sigma in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)),
    "input-transform": tuple({"tampering": name} for name in ("jpeg-90-444", "jpeg-75-444", "jpeg-50-444", "median-3")),
    "bit-depth": tuple({"bits": bits} for bits in (1, 2, 3, 4)),
    "purification": ({},),
}
"""Settings that are tried by themselves, by the defense's name; end times as parts of the net's own."""

SCALES = (1.0, 1.1, 1.25, 1.5, 2.0)
"""How far what an attack of smallest norm found is pushed on."""

NOISE = (0.003, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Standard deviations of the noise that is set beside a defense."""


@dataclass(frozen=True)
class Tuning:
    """How settings are chosen: among `candidates`, that which wins back most of the validation images that `attack` broke without
    knowing the defense, at the cost of at most `loss` of the share of clean images that are right.

    `images` clean ones; the first `attacked` of them are attacked, the first `answered` by an attacker who knows the candidate:
    its best response, by `response`, which follows `searched` draws of a random defense, and the bare net, and goes on by up to
    the last of SCALES if it is an attack of smallest norm. Judged under `draws` other draws.
    """

    view: View
    data: str
    candidates: tuple[Defended, ...]
    attack: Attack
    response: Attack
    loss: float = 0.01
    images: int = 300
    attacked: int = 100
    answered: int = 30
    searched: int = 4
    draws: int = 3
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

    def behind(self, defense: Defended, draws: int = 0) -> View:
        """The net behind a defense."""
        return replace(self.view, defense=defense, draws=draws)


@dataclass(frozen=True)
class Tried:
    """What came of a candidate, on validation images: shares in [0, 1], with intervals.

    `clean`: of clean images that are right; `lost`: how much less that is than without a defense; `won`: of the images that the
    attack broke, those that are right again; `sigma`: noise that changes clean margins as much, the loudest of NOISE where none
    does; `noise_won`: what noise wins back, by interpolation. Of the best response, in a ball `withstood`: of images that are
    right, those that stand it; else `distance`: the median L2 at which most draws are fooled, as a multiple of the bare net's,
    inf where half never are. None: not asked.
    """

    defense: Defended
    clean: Interval
    lost: Interval
    won: Interval
    sigma: float
    noise_won: float
    admissible: bool
    withstood: Interval | None = None
    distance: float | None = None


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
        progress.stage("tune", sum(map(work, first)) + sum(map(work, _responses(tuning, tuning.candidates))))
        _run(runner, tuning, first, progress.advance)
        found = _tried(tuning, runner)
        second = _responses(tuning, [one.defense for one in found if one.admissible])
        _run(runner, tuning, second, lambda done: progress.advance(sum(map(work, first)) + done))
        found = [_answered(tuning, runner, one) if one.admissible else one for one in found]
    return chosen(found), found


def chosen(found: Sequence[Tried]) -> Defended | None:
    """That which wins back most of those that cost no more than allowed; of equals, that which costs least."""
    allowed = [one for one in found if one.admissible]
    return max(allowed, key=lambda one: (one.won.value, one.clean.value)).defense if allowed else None


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
    """The attacker who knows each of these, and the same attack on the bare net."""
    scales = (1.0,) if tuning.response.budget is not None else SCALES
    units: list[Unit] = []
    for images in shards(tuning.data, tuning.split, tuning.answered, tuning.shard):
        bare = Craft("response", tuning.response, tuning.view, images)
        units.append(bare)
        for one in defenses:
            conditions = tuple(Condition(draw=draw, scale=scale) for scale in scales for draw in _drawn(tuning, one))
            view = tuning.behind(one, tuning.searched)
            response = whole(tuning.response) if view.random else tuning.response
            # The gradient of the bare net as well, in case the defense's own is of no use.
            made = [Craft("response", response, view, images, source) for source in (None, tuning.view)]
            units += made
            units += [Judge("response", tuning.behind(one), images, conditions, craft) for craft in (bare, *made)]
    return units


def whole(attack: Attack) -> Attack:
    """The same attack, taking all its steps: where an image will meet other draws than the attack's, one that lies just beyond the
    border is not enough."""
    return replace(attack, early_stop=False) if isinstance(attack, PGD | BIM) else attack


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
        .agg(dose=(pl.col("true_margin") - pl.col("still")).pow(2).mean().sqrt())
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
    """The same with what the best response does."""
    judged = runner.ledger.read("judged", tuning.name).filter(pl.col("experiment") == "response")
    shown = _of(judged, tried.defense.text).filter(~pl.col("initially_wrong"))
    each = shown.group_by("image", "crafted", "scale").agg(fooled=fooled().cast(pl.Float64).mean())
    if tuning.response.budget is not None:
        stood = 1 - each.group_by("image").agg(pl.col("fooled").max()).sort("image")["fooled"].to_numpy()
        return replace(tried, withstood=mean(stood))
    crafted = attacked(runner.ledger.read("crafted", tuning.name).filter(pl.col("experiment") == "response"))
    lengths = crafted.select(pl.col("key").alias("crafted"), "image", "l2", "success").unique()
    far = pl.when((pl.col("fooled") > 0.5) & (pl.col("l2") > 0)).then(pl.col("l2") * pl.col("scale")).otherwise(np.inf)
    mine = each.join(lengths, on=["crafted", "image"]).group_by("image").agg(far=far.min())
    bare = crafted.filter(pl.col("defense").is_null() & pl.col("success")).select("image", bare="l2").unique("image")
    both = mine.join(bare, on="image").sort("image")
    ratio = float(np.median(both["far"].to_numpy() / both["bare"].to_numpy())) if both.height else None
    return replace(tried, distance=ratio)


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
        "response": tuning.response.record() | {"searched draws": tuning.searched},
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
