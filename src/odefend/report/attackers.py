"""The threat model in words: who attacks, what may be changed, what is known, and on which images."""

import json

import numpy as np
import polars as pl

from odefend.experiments import Experiment
from odefend.experiments.expand import several
from odefend.experiments.parts import AttackPart, DataPart, SourcePart
from odefend.metrics.attacked import plainly
from odefend.metrics.rows import Rows, attacked
from odefend.report.page import Section

KNOWS = {
    "oblivious": "knows nothing of what defends the judged models",
    "transfer": "knows another net",
    "white-box": "knows the net, its weights and how it is solved",
    "adaptive": "knows all of the model but its random draws",
    "black-box": "sees answers only",
}
"""What an attacker of each role knows."""

NORMS = {"linf": "L-inf", "l2": "L2", "rms": "RMS"}


def threat(experiment: Experiment, rows: Rows) -> Section:
    """Every attack: its ball, what it knows, and how its search converged."""
    text = [
        "Pixels are in [0, 1], and every one may be changed. Attacks are untargeted unless said otherwise. Images that a model "
        "gets wrong before an attack are left out of success rates, and count as lost in robust accuracy.",
        *(_drawn(name, part) for name, part in experiment.data.items() if name in set(rows.crafted["data"])),
    ]
    facts = [
        (name, _told(part, rows.crafted.filter(pl.col("attack") == name))) for name, part in experiment.attacks.items()
    ]
    return Section("Who attacks, and how", tuple(text), facts=tuple(facts))


def _drawn(name: str, part: DataPart) -> str:
    """Which images these are."""
    if part.sample is not None:
        return f"{name}: images of the {part.split} split of {part.set}, drawn at random by the seed {part.sample}."
    return (
        f"{name}: the first images of the {part.split} split of {part.set}, in the order of the data set. Where that order is not "
        "random, as in the test part of MNIST, they are no sample of it."
    )


def _told(part: AttackPart, made: pl.DataFrame) -> str:
    """An attack as a reader would describe it."""
    if not made.height:
        return f"{part.attack}: no rows so far"
    row = made.row(0, named=True)
    usual = {"search_precision": "full"}
    given = {
        name: value
        for name, value in json.loads(row["settings"]).items()
        if name != "epsilon" and usual.get(name) != value
    }
    settings = plainly(json.dumps(given))
    radii = sorted(made["epsilon"].drop_nulls().unique())
    norm = NORMS.get(row["norm"], row["norm"])
    ball = (
        f"within {norm} radius {', '.join(f'{one:g}' for one in radii)}"
        if radii
        else f"seeks the smallest {norm} perturbation"
    )
    parts = [
        f"{row['algorithm']} ({settings})" if settings else str(row["algorithm"]),
        ball,
        f"{part.role}: {KNOWS[part.role]}",
    ]
    parts.append(f"on {', '.join(dict.fromkeys(map(str, made['model'])))}" + _tolerances(made["rtol"]))
    parts += [one for one in (_source(part, row), _extra(part), _course(made)) if one]
    return "; ".join(parts) + f"; {made['image'].n_unique()} images"


def _tolerances(rtol: pl.Series) -> str:
    at = sorted(rtol.drop_nulls().unique())
    return f" at tolerance {', '.join(f'{one:g}' for one in at)}" if at else ""


def _source(part: AttackPart, row: dict[str, object]) -> str:
    """Whose gradients it follows."""
    source = SourcePart(model=part.source) if isinstance(part.source, str) else part.source
    if source is not None and source.model:
        return f"follows gradients of {source.model}"
    tolerance = None if source is None else source.tolerance
    at = "" if tolerance is None else f" of the solve at {', '.join(map(str, several(tolerance)))}"
    return f"follows {row['source_gradient']} gradients{at}" if row["source_gradient"] else ""


def _extra(part: AttackPart) -> str:
    """What else it knows."""
    told = [f"averaged over {part.draws} draws"] if part.draws else []
    if part.knowing:
        alarms = ", ".join(f"{one:.0%}" for one in several(part.alarms))
        told.append(f"has to pass {', '.join(several(part.knowing))} at {alarms} false alarms as well")
    return "; ".join(told)


def _course(made: pl.DataFrame) -> str:
    """How a search for the smallest perturbation converged, on the first model."""
    row = made.row(0, named=True)
    same = (pl.col(name).eq_missing(pl.lit(row[name], made.schema[name])) for name in ("model", "rtol"))
    first = attacked(made.filter(*same))
    broken = first.filter("success")["history"].drop_nulls()
    if not len(broken):
        return ""
    rounds = int(broken.list.len().min() or 0)  # type: ignore[arg-type]
    course = ", ".join(f"{np.median(broken.list.get(step).to_numpy()):.3f}" for step in range(rounds))
    return f"median distance after each round {course}" if rounds > 1 else ""
