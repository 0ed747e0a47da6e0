"""The report of an experiment: its claims, tables and figures, as one page and as files of their own."""

from pathlib import Path

from odefend.experiments import Experiment
from odefend.files import make_folder, write_text
from odefend.metrics import Rows
from odefend.report.claims import Judged, judge
from odefend.report.drawn import figure
from odefend.report.filled import table
from odefend.report.page import Page, Section, write_page
from odefend.report.table import Table, write_tables

READ_OFF = "Every number is read off the ledger beside this page; brackets hold 95 % confidence intervals over images."


def write(experiment: Experiment, rows: Rows, folder: Path) -> Path:
    """Write NAME.html, its tables as NAME-tables/*.csv, .md and .tex, and its figures as NAME-figures/*.svg. Returns the page's
    path."""
    tables = [table(part, rows, experiment) for part in experiment.tables]
    figures = [(figure(part, rows), part.caption or part.title) for part in experiment.figures]
    path = folder / f"{experiment.name}.html"
    write_page(page(experiment, rows, tables, figures), path)
    if tables:
        write_tables(tables, folder / f"{experiment.name}-tables")
    if figures:
        place = make_folder(folder / f"{experiment.name}-figures")
        for number, (drawn, _) in enumerate(figures, 1):
            write_text(place / f"{number}.svg", drawn + "\n")
    return path


def page(experiment: Experiment, rows: Rows, tables: list[Table], figures: list[tuple[str, str]]) -> Page:
    """The whole report."""
    counts = f"{rows.crafted.height} crafted, {rows.judged.height} judged, {rows.scored.height} scored"
    facts = (
        ("models", "; ".join(f"{name}: {part.net}" for name, part in experiment.models.items())),
        ("data", "; ".join(f"{name}: {part.set}, {part.split}" for name, part in experiment.data.items())),
        ("attacks", "; ".join(f"{name}: {part.attack}, {part.role}" for name, part in experiment.attacks.items())),
        ("rows", counts),
        ("rows by", ", ".join(sorted(rows.crafted["code_version"].cast(str).unique()))),
    )
    sections = [Section("Tables", tables=tuple(tables))] if tables else []
    sections += [Section("Figures", figures=tuple(figures))] if figures else []
    return Page(
        experiment.title or experiment.name,
        experiment.text or READ_OFF,
        tuple(told(judge(claim, rows)) for claim in experiment.claims),
        (*sections, Section("Where these numbers come from", facts=facts)),
    )


def told(one: Judged) -> str:
    """A claim in a sentence, with what became of it."""
    gap = one.difference
    numbers = f" (left minus right {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}])" if gap.n else " (no rows)"
    return f"{one.outcome.capitalize()}: {one.sentence}{numbers}"
