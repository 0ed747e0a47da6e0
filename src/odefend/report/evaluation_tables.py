"""Which rows of an evaluation go into which of its tables."""

import polars as pl

from odefend.evaluation.spec import Trial
from odefend.report import tables
from odefend.report.rows import Rows
from odefend.report.table import Table


def of_nets(rows: Rows) -> Table:
    """The nets without a defense."""
    about = rows.evaluation
    return tables.nets(
        rows.crafted,
        rows.judged,
        rows.nets,
        about.tolerance,
        [trial.name for trial in rows.trials("minimum norm") if about.tolerance in about.attacked_at(trial)],
        [
            trial.name
            for trial in rows.trials("epsilon curve")
            if about.epsilon in trial.epsilon and about.tolerance in about.attacked_at(trial)
        ],
        about.epsilon,
    )


def of_recovery(rows: Rows, trial: Trial, at: float) -> Table:
    """What judging at each tolerance wins back of the images that a search made at one."""
    about = rows.evaluation
    return tables.recovery(rows.about(trial, at), about.net, about.tolerances, rows.doses, at, trial.name)


def of_matrix(rows: Rows, trial: Trial) -> Table:
    """Accuracy by attacked and judged tolerance."""
    norms = rows.made(trial.name)["norm"].unique().to_list()
    crafted = rows.crafted.filter(pl.col("norm").is_in(norms))
    return tables.matrix(crafted, rows.judged, trial.at, rows.evaluation.net, trial.epsilon[0], trial.name)


def of_detectors(rows: Rows) -> tuple[Table, Table]:
    """The votes and their controls: how they rank images, and what they catch at a threshold."""
    names = [f"{kind} vote, V = {votes}" for kind in ("tolerance", "noise") for votes in rows.votes]
    names.append(margin(rows))
    return tables.detectors(rows.scored, names, pushed(rows)), tables.alarms(rows.scored, names, pushed(rows))


def pushed(rows: Rows) -> list[float]:
    """How far the images that votes see were pushed, the least first."""
    return sorted(rows.evaluation.vote.scales) if rows.evaluation.vote else []


def margin(rows: Rows) -> str:
    """The name of the one-pass margin among the scored rows."""
    return f"one-pass margin ({rows.evaluation.net})"
