"""Choosing a defense's settings on validation images: what they cost clean images, what they win back, and what an attacker who
knows them does about it, beside noise that changes clean answers as much."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from odefend.attacks import Attack
from odefend.errors import InvalidInput, unknown
from odefend.evaluation.controls import matched_sigma
from odefend.evaluation.craft import Craft
from odefend.evaluation.judge import Condition, Judge
from odefend.evaluation.ledger import canonical, digest
from odefend.evaluation.plan import work
from odefend.evaluation.robustness import attacked
from odefend.evaluation.runner import Runner
from odefend.evaluation.unit import Unit
from odefend.evaluation.views import Defended, View, shards
from odefend.intervals import Interval, mean, mean_difference
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
"""Settings that are tried by themselves, by the defense's name. End times are parts of 1, that of most nets."""

NOISE = (0.003, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Standard deviations of the noise that is set beside a defense."""


@dataclass(frozen=True)
class Tuning:
    """How settings are chosen: among `candidates`, that which wins back most of the validation images that `attack` broke without
    knowing the defense, at the cost of at most `loss` of the share of clean images that are right.

    `images` clean ones; the first `attacked` of them are attacked, the first `answered` by an attacker who knows the candidate:
    its best response, by `response`, which follows `searched` draws of a random defense, and the bare net. Judged under `draws`
    others.
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
        return f"tuning-{digest({'tuning': repr(self), 'version': code_version()})[:8]}"

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
    attack broke, those that are right again; `withstood`: of images that the net gets right, those that stand the best response;
    `distance`: the median distance of what that found, as a multiple of the same attack's on the bare net, inf where half are
    not found; `sigma`: noise that changes clean margins as much; `noise_won`: what that noise wins back. None: not asked.
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


def candidates(name: str) -> tuple[Defended, ...]:
    """The settings of a defense that are tried by themselves. Raises UnknownName for one that has none."""
    if name not in CANDIDATES:
        raise unknown("defense to tune", name, CANDIDATES)
    return tuple(Defended(name, canonical(settings)) for settings in CANDIDATES[name])


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


def _first(tuning: Tuning) -> list[Unit]:
    """Clean images, and those of an attacker who knows nothing, before every candidate and every noise."""
    bare = (Condition(tuning.view.tolerance),)
    drawn = tuple(Condition(draw=draw) for draw in range(tuning.draws))
    units: list[Unit] = []
    for images in shards(tuning.data, tuning.split, tuning.images, tuning.shard):
        units.append(Judge("clean", tuning.view, images, bare))
        units += [Judge("clean", tuning.behind(one), images, drawn) for one in _all(tuning)]
    for images in shards(tuning.data, tuning.split, tuning.attacked, tuning.shard):
        craft = Craft("plain", tuning.attack, tuning.view, images)
        units.append(craft)
        units += [Judge("plain", tuning.behind(one), images, drawn, craft) for one in _all(tuning)]
    return units


def _all(tuning: Tuning) -> list[Defended]:
    return list(dict.fromkeys((*tuning.candidates, *tuning.noises)))


def _responses(tuning: Tuning, defenses: Sequence[Defended]) -> list[Unit]:
    """The attacker who knows each of these, and the same attack on the bare net."""
    drawn = tuple(Condition(draw=draw) for draw in range(tuning.draws))
    units: list[Unit] = []
    for images in shards(tuning.data, tuning.split, tuning.answered, tuning.shard):
        units.append(Craft("response", tuning.response, tuning.view, images))
        for one in defenses:
            # The gradient of the bare net as well, in case the defense's own is of no use.
            for source in (None, tuning.view):
                craft = Craft("response", tuning.response, tuning.behind(one, tuning.searched), images, source)
                units += [craft, Judge("response", tuning.behind(one), images, drawn, craft)]
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
        .agg(dose=(pl.col("true_margin") - pl.col("still")).pow(2).mean().sqrt())
        .to_dicts()
    }
    noise = {sigma: doses[_settings(tuning, one)] for sigma, one in zip(NOISE, tuning.noises, strict=True)}
    won_by_noise = {
        sigma: mean(_of(plain, _settings(tuning, one))["correct"].to_numpy()).value
        for sigma, one in zip(NOISE, tuning.noises, strict=True)
    }
    found = []
    for one in tuning.candidates:
        of = _settings(tuning, one)
        mine = _of(clean, of).join(bare, on="image")
        right, lost = (
            mean(mine["correct"].to_numpy()),
            mean_difference(mine["base"].to_numpy(), mine["correct"].to_numpy()),
        )
        sigma = matched_sigma(doses[of], noise)
        nearest = min(NOISE, key=lambda other: abs(other / sigma - 1) if sigma else other)
        won = mean(_of(plain, of)["correct"].to_numpy())
        found.append(Tried(one, right, lost, won, sigma, won_by_noise[nearest], lost.value <= tuning.loss))
    return found


def _answered(tuning: Tuning, runner: Runner, tried: Tried) -> Tried:
    """The same with what the best response does."""
    crafted = runner.ledger.read("crafted", tuning.name).filter(pl.col("experiment") == "response")
    judged = runner.ledger.read("judged", tuning.name).filter(pl.col("experiment") == "response")
    of = _settings(tuning, tried.defense)
    shown = judged.filter((pl.col("settings") == of) & ~pl.col("initially_wrong"))
    each = shown.group_by("image", "crafted").agg(pl.col("correct").cast(pl.Float64).mean())
    stood = mean(each.group_by("image").agg(pl.col("correct").min())["correct"].to_numpy())
    if tuning.response.budget is not None:
        return replace(tried, withstood=stood)
    mine, bare = (_nearest(crafted.filter(pl.col("defense").eq_missing(pl.lit(defense)))) for defense in (of, None))
    both = mine.join(bare.filter(pl.col("distance").is_finite()), on="image", suffix="_bare")
    ratio = float(np.median(both["distance"].to_numpy() / both["distance_bare"].to_numpy())) if both.height else None
    return replace(tried, withstood=stood, distance=ratio)


def _nearest(crafted: pl.DataFrame) -> pl.DataFrame:
    """The smallest distance found of each image."""
    return attacked(crafted).group_by("image").agg(pl.col("distance").min()).sort("image")


def _settings(tuning: Tuning, defense: Defended) -> str:
    """How rows name a defense."""
    return tuning.behind(defense).defended() or ""


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
        "images": {"clean": tuning.images, "attacked": tuning.attacked, "answered": tuning.answered},
        "code_version": code_version(),
        "tried": [_told(one) for one in found],
    }


def _told(tried: Tried) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for key, value in vars(tried).items():
        if isinstance(value, Defended):
            told[key] = {"name": value.name, "settings": json.loads(value.settings)}
        else:
            told[key] = vars(value) if isinstance(value, Interval) else value
    return told
