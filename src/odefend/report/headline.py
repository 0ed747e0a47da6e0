"""The first screen of a report: what was attacked, what withstood it, and whether the attacks can be trusted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from odefend import intervals
from odefend.experiments import Experiment
from odefend.intervals import NO_DATA, Interval
from odefend.metrics.attacked import Attacked, attacked_models, standing
from odefend.metrics.rows import Rows, attacked
from odefend.metrics.signs import Check
from odefend.report.table import Table

SHOWN = 12
"""Models on the first screen, at most."""

BOUND = (
    "Robust accuracy is the share of images that are answered rightly, and still are after every attack in the ball; it is no "
    "higher than shown, up to sampling error."
)


@dataclass(frozen=True)
class Standing:
    """How one model stands: in which ball, its accuracy on clean images and under all attacks in the ball, what searches for the
    smallest perturbation found, and how many of its checks passed, failed, or are unknown."""

    model: str
    ball: str
    clean: Interval
    robust: Interval
    searched: str
    passed: int
    failed: int
    unknown: int

    @property
    def told(self) -> str:
        """The checks in words."""
        return f"{self.passed} passed, {self.failed} failed, {self.unknown} unknown"


@dataclass(frozen=True)
class Headline:
    """The first screen: sentences, how each model stands, and a picture (SVG, caption) or none."""

    sentences: tuple[str, ...]
    standings: tuple[Standing, ...]
    picture: tuple[str, str] | None = None


def standings(rows: Rows, found: Sequence[Check], names: Sequence[str] = ()) -> list[Standing]:
    """Every attacked model, once for each ball; those that are guarded by a detector are left to tables."""
    models = [model for model in attacked_models(rows, names) if not model.refused]
    return [one for model in models for one in _standings(rows, model, found)]


def _standings(rows: Rows, model: Attacked, found: Sequence[Check]) -> list[Standing]:
    counts = Counter(one.outcome for one in found if (one.model, one.where) == (model.name, model.where))
    told = counts["passed"], counts["failed"], counts["unknown"]
    searched = _searched(model)
    if not model.balls:
        return [Standing(model.text, "", NO_DATA, NO_DATA, searched, *told)]
    balls = [(ball.text, *standing(rows, model, ball)) for ball in model.balls]
    return [Standing(model.text, text, clean, robust, searched, *told) for text, clean, robust in balls]


def _searched(model: Attacked) -> str:
    """What searches for the smallest perturbation found."""
    made = attacked(model.crafted.filter(pl.col("epsilon").is_null()))
    told = []
    for (norm,), part in made.partition_by("norm", maintain_order=True, as_dict=True).items():
        hits = part.filter("success").group_by("image").agg(pl.col("distance").min())
        broken, tried = hits.height, part["image"].n_unique()
        near = (
            f", at a median {norm} distance of {intervals.median(hits['distance'].to_numpy()).text()}" if broken else ""
        )
        told.append(f"without bound {intervals.rate(broken, tried).percent} broken{near}")
    return "; ".join(told)


def headline(experiment: Experiment, rows: Rows, found: Sequence[Check], picture: tuple[str, str] | None) -> Headline:
    """The first screen of an experiment's report."""
    everyone = standings(rows, found, list(experiment.models))
    shown = tuple(everyone[:SHOWN])
    if not everyone:
        return Headline(("No model has been attacked so far.",) if experiment.attacks else (), ())
    made = {column: set(rows.crafted[column].cast(pl.String)) for column in ("model", "attack")}
    models, attacks = (
        _list([name for name in names if name in made[column]])
        for column, names in (("model", experiment.models), ("attack", experiment.attacks))
    )
    told = [f"Attacked: {models}. By: {attacks}.", conclusion(everyone)]
    if len(everyone) > SHOWN:
        told.append(f"These are the first {SHOWN} of {len(everyone)} attacked models; the tables below have all.")
    return Headline(tuple(told), shown, picture)


def conclusion(everyone: Sequence[Standing]) -> str:
    """What may be said of all of them: never that a net withstands what was not tried."""
    if any(one.failed or one.unknown for one in everyone):
        return (
            f"{BOUND} Not all checks passed, so a better attack is likely to lower it. Nothing here supports a claim of "
            "security."
        )
    return f"{BOUND} No check found a sign of a weak attack; a better one may still lower it."


def standing_table(everyone: Sequence[Standing]) -> Table:
    """The first screen for a terminal."""
    rows = tuple(
        (
            one.model,
            one.ball or "-",
            one.clean.percent if one.clean.n else "-",
            one.robust.percent if one.robust.n else "-",
            one.told,
        )
        for one in everyone
    )
    return Table(
        "How the models stand", ("model", "ball", "clean", "robust accuracy", "checks"), rows, conclusion(everyone)
    )


def _list(names: Sequence[str], most: int = 9) -> str:
    """As in "a; b; c and 2 more"."""
    return "; ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
