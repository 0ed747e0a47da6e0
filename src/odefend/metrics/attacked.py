"""Models as they were attacked: the rows of one model at one point of its grid, whichever names an experiment gives it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from odefend.intervals import Interval
from odefend.metrics.measures import PerImage, attacked_or_wrong, right_before, robust, share
from odefend.metrics.rows import Rows

POINT = (
    "net",
    "net_digest",
    "defense",
    "rtol",
    "method",
    "end",
    "coupling",
    "max_steps",
    "data",
    "past",
    "alarms",
    "target",
)
"""Columns that decide what an attack of some strength can reach: which function is attacked, on which images, and what counts as
success."""

TOLD: Mapping[str, str] = {
    "rtol": "tolerance {:g}",
    "method": "{}",
    "end": "end by {}",
    "coupling": "step sizes by {}",
    "max_steps": "at most {} steps",
    "defense": "{}",
    "data": "on {}",
    "past": "past {}",
    "alarms": "at {:.0%} false alarms",
    "target": "towards class {}",
}
"""How a reader is told one point of a model from another."""


@dataclass(frozen=True)
class Ball:
    """The images that an attacker may make: within `radius` in `norm`."""

    norm: str
    radius: float

    @property
    def text(self) -> str:
        """As in "linf radius 0.1"."""
        return f"{self.norm} radius {self.radius:g}"


@dataclass(frozen=True)
class Attacked:
    """A model at one point: its name, what tells this point from others of the name, the rows of what was made against it, and of
    what it judged, made against it or not."""

    name: str
    where: str
    crafted: pl.DataFrame
    judged: pl.DataFrame
    balls: tuple[Ball, ...]
    """For each norm the ball that most attacks of the experiment were run in."""

    @property
    def text(self) -> str:
        """Name and point."""
        return f"{self.name}, {self.where}" if self.where else self.name

    @property
    def solves(self) -> bool:
        """Whether it solves an ODE that odefend chooses the steps of."""
        return self.crafted["coupling"].null_count() == 0

    @property
    def refused(self) -> bool:
        """Whether a detector has to be passed as well."""
        return self.crafted["past"].null_count() < self.crafted.height

    def inside(self, ball: Ball) -> pl.DataFrame:
        """What was crafted in a ball."""
        return self.crafted.filter((pl.col("norm") == ball.norm) & (pl.col("epsilon") == ball.radius))


def attacked_models(rows: Rows, names: Sequence[str] = ()) -> list[Attacked]:
    """Every model that attacks were run on, at each point. Of several names a model has the first of `names`, which also give the
    order of models; points are in the order of their tolerance."""
    rank = {name: place for place, name in enumerate(names)}
    parts = [(_name(part, rank), part) for part in rows.crafted.partition_by(POINT, maintain_order=True)]
    parts.sort(key=lambda one: (rank.get(one[0], len(rank)), one[1]["rtol"].to_list()[0] or 0.0))
    found = []
    for name, part in parts:
        namesakes = [other for one, other in parts if one == name]
        # Under two names of a model the same images count once.
        made = part.unique(["key", "image", "attack"], maintain_order=True)
        found.append(Attacked(name, _where(part, namesakes), made, _judged(rows, part), _balls(made, rows.crafted)))
    return found


def _balls(made: pl.DataFrame, everything: pl.DataFrame) -> tuple[Ball, ...]:
    """For each norm the ball that most attacks were run in on all models, of those that it was attacked in; of several the
    smallest."""
    here, counts = set(_inside(made)), Counter(_inside(everything))
    ranked = sorted(here, key=lambda ball: (-counts[ball], ball.radius))
    return tuple(next(ball for ball in ranked if ball.norm == norm) for norm in sorted({ball.norm for ball in here}))


def _inside(made: pl.DataFrame) -> list[Ball]:
    """The ball of each attack on each model."""
    names = ["norm", "epsilon", "attack", "model"]
    inside = made.filter(pl.col("epsilon").is_not_null()).select(pl.col(names)).unique()
    return [Ball(str(norm), float(radius)) for norm, radius, *_ in inside.iter_rows()]


def _name(part: pl.DataFrame, rank: Mapping[str, int]) -> str:
    return min(map(str, part["model"].unique(maintain_order=True)), key=lambda name: rank.get(name, len(rank)))


def judging(judged: pl.DataFrame, crafted: pl.DataFrame) -> pl.DataFrame:
    """The judged rows of crafted images."""
    return judged.filter(pl.col("crafted").cast(pl.String).is_in(crafted["key"].cast(pl.String).unique().to_list()))


def _where(part: pl.DataFrame, others: list[pl.DataFrame]) -> str:
    """What tells a part from the others of its name."""
    here, told = part.row(0, named=True), list[str]()
    for column, words in TOLD.items():
        differs = len({other[column].to_list()[0] for other in others}) > 1
        if here[column] is not None and (differs or column in ("past", "alarms", "target")):
            told.append(words.format(plainly(here[column]) if column == "defense" else here[column]))
    return ", ".join(told)


def plainly(settings: str) -> str:
    """Settings in JSON as a reader would write them."""

    def told(name: str, value: Any) -> str:
        shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        if isinstance(value, dict):
            return plainly(json.dumps(value))
        return str(shown) if name in ("name", "attack") else f"{name.replace('_', ' ')} {shown}"

    given = {name: value for name, value in json.loads(settings).items() if value not in (None, [], {})}
    first = [name for name in ("name", "attack") if name in given]
    return ", ".join(told(name, given[name]) for name in (*first, *(one for one in given if one not in first)))


def _judged(rows: Rows, part: pl.DataFrame) -> pl.DataFrame:
    """What a model judged at the point of these crafted rows, as it is: images not scaled further, nor rounded."""
    here = part.row(0, named=True)
    same = [
        pl.col(name).eq_missing(pl.lit(here[name], rows.judged.schema[name])) for name in ("defense", "rtol", "data")
    ]
    mine = pl.col("model").cast(pl.String).is_in(part["model"].cast(pl.String).unique().to_list())
    return rows.judged.filter(mine, pl.col("change").is_null(), *same)


def standing(rows: Rows, model: Attacked, ball: Ball) -> tuple[Interval, Interval]:
    """(accuracy on clean images, robust accuracy in a ball) of a model, both on the images that were attacked: under everything
    that was made against it or that it was shown, in the worst case for each image."""
    keys = rows.crafted.filter(
        (pl.col("norm") == ball.norm) & (pl.col("epsilon") == ball.radius) & pl.col("past").is_null()
    )
    asis = (pl.col("scale") == 1.0) & pl.col("to_epsilon").is_null() & ~pl.col("rounded").fill_null(value=False)
    clean = model.judged.filter(pl.col("kind") == "clean")
    judged = pl.concat([clean, judging(model.judged, keys).filter(asis)])
    here = replace(rows, crafted=model.inside(ball), judged=judged)
    clean_ones = right_before(here).join(attacked_or_wrong(here), on="image", how="semi")
    return share(clean_ones["value"].to_numpy()), PerImage(robust).of(here)
