"""The report of an evaluation: what of its rows goes where on the page, and the short tables for the terminal.

A section stands only where the evaluation has what it is about.
"""

from pathlib import Path

import polars as pl

from odefend.evaluation.robustness import attacked
from odefend.report import evaluation_tables, findings, sections
from odefend.report.gallery import gallery
from odefend.report.page import Page, write_page
from odefend.report.published import published_lessons, published_section, published_table
from odefend.report.questions import doubts
from odefend.report.rows import Rows
from odefend.report.table import Table, write_tables
from odefend.report.threat import threat


def write(rows: Rows, folder: Path, seconds: float | None = None) -> Path:
    """Write NAME.html, and its tables as NAME-tables/*.csv, .md and .tex; `seconds`: how long the last run took. Returns
    the page's path."""
    name = rows.evaluation.name
    write_page(page(rows, seconds), folder / f"{name}.html")
    write_tables(summary(rows), folder / f"{name}-tables")
    return folder / f"{name}.html"


def page(rows: Rows, seconds: float | None = None) -> Page:
    """The whole report."""
    about = rows.evaluation
    control = (
        f" Beside it stands {about.control}, a net without a solver: what it shows as well is not owed to the ODE."
        if about.control
        else ""
    )
    unfinished = "" if rows.finished else " The evaluation is not finished: this is what its rows say so far."
    return Page(
        about.title or about.name,
        f"{about.net}, attacked on up to {about.images} test images of {about.data} that it was not trained on.{control} Every "
        "number is read off the ledger beside this page; brackets hold 95 % confidence intervals over images, which are wide "
        f"for few; they do not cover other training runs or attack seeds.{unfinished}",
        lessons(rows),
        tuple(
            section
            for section in (
                threat(rows),
                sections.undefended(rows),
                published_section(rows),
                *(sections.recovery(rows, trial, at) for trial, at in rows.everywhere()),
                *(sections.matrix(rows, trial) for trial in rows.matrices()),
                sections.trajectories(rows),
                sections.detection(rows),
                sections.work(rows),
                gallery(rows),
                sections.doubted(rows),
                sections.provenance(rows, seconds),
            )
            if section is not None
        ),
    )


def summary(rows: Rows) -> tuple[Table, ...]:
    """What the terminal shows."""
    found = [evaluation_tables.of_nets(rows)]
    if (beside := published_table(rows)).rows:
        found.append(beside)
    found += [evaluation_tables.of_recovery(rows, trial, at) for trial, at in rows.everywhere()]
    found += [evaluation_tables.of_matrix(rows, trial) for trial in rows.matrices()]
    if rows.votes:
        found.extend(evaluation_tables.of_detectors(rows))
    return tuple(found)


def lessons(rows: Rows) -> tuple[str, ...]:
    """The findings, in the order of the argument."""
    about, found = rows.evaluation, list[str]()
    if not attacked(rows.crafted).height:
        return ("No image that a net has right has been attacked so far, so there is nothing to say.",)
    matrix = next(iter(rows.matrices()), None)
    if about.epsilon is not None:
        open_ = doubts(rows, about.net)
        found.append(findings.verdict(open_, rows.balls, about.net, about.epsilon, rows.judged, rows.grid))
    for trial in rows.trials("minimum norm"):
        if about.control and trial.control:
            at = about.attacked_at(trial)[0]
            here = rows.crafted.filter(pl.col("rtol").is_null() | (pl.col("rtol") == at))
            found.append(findings.undefended(here, about.net, about.control, trial.name))
    found += published_lessons(rows)
    for trial, at in rows.everywhere() if rows.doses else ():
        judged = rows.about(trial, at)
        if at == about.tolerance and rows.doses:
            found.append(findings.against_noise(judged, about.net, rows.doses, trial.name, at))
        tight = sorted(about.tolerances)[:2]
        if len(tight) == 2 and at > tight[1]:
            found.append(findings.numerical_error(judged, about.net, at, tight[0], tight[1], trial.name))
        if at == about.tolerance:
            found.append(findings.pushing_on(judged, about.net, [t for t in about.tolerances if t != at]))
    if matrix and about.epsilon is not None:
        found.append(findings.best_response(rows.balls, rows.judged, matrix.at, about.net, about.epsilon))
    if rows.votes:
        most = max(rows.votes)
        found.append(
            findings.detecting(
                rows.scored,
                f"tolerance vote, V = {most}",
                f"noise vote, V = {most}",
                evaluation_tables.margin(rows),
                evaluation_tables.pushed(rows)[:2],
            )
        )
    if rows.solves:
        found.append(findings.clean_cost(rows.judged, about.net, about.tolerances))
    return tuple(found)
