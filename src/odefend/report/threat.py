"""Who attacks and how, told from the rows."""

import json
from typing import Any

import numpy as np
import polars as pl

from odefend.evaluation.robustness import attacked
from odefend.evaluation.spec import Trial
from odefend.report.page import Section
from odefend.report.rows import Rows


def threat(rows: Rows) -> Section:
    """What the attacker knows and may do, every attack with its settings, and how the searches converged."""
    about, facts = rows.evaluation, list[tuple[str, str]]()
    for trial in about.trials:
        made = rows.crafted.filter(pl.col("trial") == trial.name)
        if made.height:
            # One row tells for all: of the net in question, if it is there, since a control has no solver.
            own = made.filter(pl.col("net") == about.net)
            facts.append(
                (trial.name, _told(trial, made, (own if own.height else made).sort("image").row(0, named=True)))
            )
    return Section(
        "Who attacks, and how",
        (
            "The attacker has the net and its weights and may change every pixel. Pixels are in [0, 1]. Attacks are untargeted "
            "unless said otherwise. Images that the net gets wrong unattacked are left out of every success rate.",
            "Knowledge: an attack knows the tolerance it attacks and follows the gradients that are named with it. None here "
            "knows of another tolerance used for judging, of random tolerances, or of a detector; what is judged at a tolerance "
            "that was not attacked, or detected, can only be less against one who does.",
            _drawn(about.sample),
            *(_course(rows, trial) for trial in rows.trials("minimum norm")),
        ),
        facts=tuple(facts),
    )


def _drawn(sample: int | None) -> str:
    """Which images these are."""
    if sample is not None:
        return f"Images are drawn at random from each split, by the seed {sample}."
    return (
        "Images are the first of each split in the order of the data set. Where that order is not random, as in the test part of "
        "MNIST, they are no sample of it."
    )


def _told(trial: Trial, made: pl.DataFrame, row: dict[str, Any]) -> str:
    """An attack's settings as a reader would write them."""
    settings = {key: value for key, value in json.loads(row["settings"]).items() if key != "epsilon"}
    parts = [f"{row['attack']}, {row['norm']}"]
    if trial.epsilon:
        parts.append("radius " + ", ".join(f"{epsilon:g}" for epsilon in trial.epsilon))
    parts.append(_plainly(json.dumps(settings)))
    nets = ", ".join(made["net"].unique(maintain_order=True).to_list())
    at = sorted(value for value in made["rtol"].unique() if value is not None)
    parts.append(f"on {nets}" + (f" at tolerance {', '.join(f'{value:g}' for value in at)}" if at else ""))
    if trial.source:
        parts.append(
            f"gradients of {row['source']}" + (f" at {row['source_rtol']:g}" if row["source_rtol"] is not None else "")
        )
    if row["source_gradient"]:
        parts.append(f"{row['source_gradient']} gradients")
    return "; ".join(part for part in parts if part) + f"; {made['image'].n_unique()} images"


def _course(rows: Rows, trial: Trial) -> str:
    """How a search for the smallest change converged."""
    made = attacked(rows.made(trial.name, at=(trial.at or (rows.evaluation.tolerance,))[0]))
    broken = made.filter("success")["history"]
    if not len(made):
        return f"{trial.name} has not come to any image yet."
    if not len(broken):
        return f"{trial.name} broke no image of {rows.evaluation.net}."
    rounds = int(broken.list.len().min() or 0)  # type: ignore[arg-type]
    course = [f"{np.median(broken.list.get(step).to_numpy()):.3f}" for step in range(rounds)]
    return (
        f"Convergence of {trial.name} on {rows.evaluation.net}: over the images it broke in the end, the median "
        f"{made['norm'][0]} norm after each round of its search was {', '.join(course)} (inf: not broken yet). It used "
        f"{made['gradient_calls'].mean():.0f} gradients per image on average."
    )


def _plainly(settings: str) -> str:
    """Settings as a reader would write them."""
    values = {key.replace("_", " "): value for key, value in json.loads(settings).items() if value is not None}
    return ", ".join(
        f"{key} {'yes' if value is True else 'no' if value is False else value}" for key, value in values.items()
    )
