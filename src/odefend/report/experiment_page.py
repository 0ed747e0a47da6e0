"""The report of an experiment: its headline, claims, tables, figures and checks, as one page and as files of their own."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import polars as pl
import torch

from odefend.experiments import Experiment
from odefend.files import make_folder, write_text
from odefend.ledger import Ledger
from odefend.metrics import Rows
from odefend.metrics.checks import checks
from odefend.metrics.signs import RARE, Check
from odefend.report.attackers import threat
from odefend.report.claims import Judged, judge
from odefend.report.drawn import figure
from odefend.report.filled import table
from odefend.report.headline import Headline, headline
from odefend.report.page import Page, Section, write_page
from odefend.report.pictured import Example, examples, gallery, strip
from odefend.report.table import Table, write_tables
from odefend.version import VERSION, code_digest

READ_OFF = (
    "Every number is read off the ledger beside this page. Brackets and bars hold 95 % confidence intervals over images, which are "
    "wide for few; they do not cover other training runs or attack seeds."
)

CAPTION = "with their labels and what the model takes them for; the largest change of a pixel is given (red brighter, blue darker)."
TRUSTED = (
    "A robustness number is worthless if the attack was weak. Each of these must hold if it was not. Failed: a sign of a weak "
    f"attack is there. Passed: it was looked for, and by the 95 % interval it is on at most {100 * RARE:g} % of the images. "
    "Unknown: nobody looked, or on too few images to tell. Not in the list: other attack seeds, several trained nets."
)
KEPT = "The folder of this page holds the ledger (rows in Parquet, and every adversarial image) and the experiment as it was run"


@dataclass(frozen=True)
class Report:
    """What an experiment's rows say, each part made once. With `own`, the user's own files are run to show images that they
    give."""

    experiment: Experiment
    rows: Rows
    folder: Path
    own: bool = False

    @cached_property
    def tables(self) -> list[Table]:
        """The experiment's tables."""
        return [table(part, self.rows, self.experiment) for part in self.experiment.tables]

    @cached_property
    def figures(self) -> list[tuple[str, str]]:
        """Its figures, with captions."""
        return [(figure(part, self.rows), part.caption or part.title) for part in self.experiment.figures]

    @cached_property
    def claims(self) -> list[Judged]:
        """What became of its claims."""
        return [judge(claim, self.rows) for claim in self.experiment.claims]

    @cached_property
    def checks(self) -> list[Check]:
        """The checks of each attacked model."""
        return checks(self.rows, list(self.experiment.models))

    @cached_property
    def examples(self) -> tuple[str, list[Example]]:
        """What an attack made of some images."""
        return examples(self.experiment, self.rows, Ledger(self.folder / "ledger"), self.own)

    @cached_property
    def headline(self) -> Headline:
        """The first screen."""
        of, found = self.examples
        picture = (strip(found[0], "An adversarial image"), f"{of}: the first image that it broke.") if found else None
        return headline(self.experiment, self.rows, self.checks, picture)

    def write(self) -> Path:
        """Write NAME.html, the tables as NAME-tables/*.csv, .md and .tex, and the figures as NAME-figures/*.svg. Returns the page's
        path."""
        name = self.experiment.name
        write_page(self.page(), self.folder / f"{name}.html")
        if self.tables:
            write_tables(self.tables, self.folder / f"{name}-tables")
        if self.figures:
            place = make_folder(self.folder / f"{name}-figures")
            for number, (drawn, _) in enumerate(self.figures, 1):
                write_text(place / f"{number}.svg", drawn + "\n")
        return self.folder / f"{name}.html"

    def page(self) -> Page:
        """The whole report."""
        sections = [threat(self.experiment, self.rows)] if self.experiment.attacks else []
        sections += [Section("Tables", tables=tuple(self.tables))] if self.tables else []
        sections += [Section("Figures", figures=tuple(self.figures))] if self.figures else []
        of, found = self.examples
        if found:
            drawn = gallery(found, "Gallery")
            caption = f"{of}: the first images that it broke, {CAPTION}"
            sections.append(Section("What adversarial images look like", figures=((drawn, caption),)))
        sections += [_checked(self.checks)] if self.checks else []
        title = self.experiment.title or self.experiment.name
        claims = tuple(map(told, self.claims))
        return Page(
            title,
            self.experiment.text or READ_OFF,
            claims,
            (*sections, _provenance(self.experiment, self.rows)),
            self.headline,
        )


def told(one: Judged) -> str:
    """A claim in a sentence, with what became of it."""
    gap = one.difference
    numbers = f" (difference {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}])" if gap.n else " (no rows)"
    return f"{one.outcome.capitalize()}: {one.sentence}{numbers}"


def _checked(found: Sequence[Check]) -> Section:
    """The checks of each model, the failed ones first."""
    models = {
        model: [one for one in found if one.model == model] for model in dict.fromkeys(one.model for one in found)
    }
    order = ("failed", "unknown", "passed")
    ranked = {model: sorted(merged(some), key=lambda one: order.index(one.outcome)) for model, some in models.items()}
    return Section(
        "Can the attacks be trusted?", (TRUSTED,), checks=tuple((model, tuple(some)) for model, some in ranked.items())
    )


def merged(found: Sequence[Check]) -> list[Check]:
    """The checks of a model, those that say the same at several points in one."""
    points: dict[tuple[str, str, str], list[Check]] = {}
    for one in found:
        points.setdefault((one.statement, one.finding, one.outcome), []).append(one)
    everywhere = {one.where for one in found}
    return [
        replace(
            some[0], where="" if {one.where for one in some} == everywhere else "; ".join(one.where for one in some)
        )
        for some in points.values()
    ]


def _provenance(experiment: Experiment, rows: Rows) -> Section:
    """Nets, data, solver and software, and how to run it again."""
    made = rows.crafted if rows.crafted.height else rows.judged
    facts = [("models", "; ".join(f"{name}: {part.net}" for name, part in experiment.models.items()))]
    if rows.crafted.height:
        nets = rows.crafted.unique("net_digest", keep="first", maintain_order=True).iter_rows(named=True)
        seeds = (f"{one['net']}, weights {one['net_digest']}, training seed {one['training_seed']}" for one in nets)
        facts.append(("attacked nets", "; ".join(seeds)))
        solvers = rows.crafted.filter(pl.col("method").is_not_null()).head(1).iter_rows(named=True)
        facts += [("solver", _solved(one)) for one in solvers]
    counts = {name: getattr(rows, name).height for name in ("crafted", "judged", "scored", "certified", "traced")}
    facts += [
        ("data", "; ".join(f"{name}: {part.set}, {part.split}" for name, part in experiment.data.items())),
        ("rows", ", ".join(f"{count} {name}" for name, count in counts.items() if count)),
        ("rows by", ", ".join(sorted(rows.crafted["code_version"].cast(str).unique())) or "no attack"),
        (
            "report by",
            f"odefend {VERSION}+{code_digest()[:8]}, torch {torch.__version__}, Python {platform.python_version()}",
        ),
    ]
    where = f"{KEPT}, in {experiment.name}.json."
    return Section("Where these numbers come from", (where,) if made.height else (), facts=tuple(facts))


def _solved(row: dict[str, object]) -> str:
    each = "image" if row["coupling"] == "sample" else "batch"
    return (
        f"{row['method']} with rtol = atol = tolerance, one step size per {each}, end of the interval by {row['end']}, "
        f"{row['precision']}, at most {row['max_steps']} steps"
    )
