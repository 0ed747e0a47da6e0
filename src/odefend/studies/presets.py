"""How much of C&W's result a shorter search reaches, by data set: what the fast presets rest on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from odefend import intervals
from odefend.attacks import CarliniWagner
from odefend.evaluation import Craft, Ledger, Runner, Slice, View
from odefend.evaluation.ledger import digest
from odefend.evaluation.robustness import attacked
from odefend.progress import Progress
from odefend.report import Table
from odefend.version import code_version

TOLERANCE = 1e-3
THOROUGH = CarliniWagner(steps=400, binary_search_steps=7, learning_rate=0.02, initial_constant=0.1)
PUBLISHED = CarliniWagner()
SHORTER = tuple(
    CarliniWagner(steps=steps, binary_search_steps=rounds, learning_rate=rate, initial_constant=constant)
    for steps, rounds, rate, constant in (
        (100, 4, 0.1, 1.0),
        (60, 4, 0.1, 1.0),
        (60, 4, 0.05, 1.0),
        (40, 4, 0.05, 1.0),
        (40, 4, 0.1, 0.1),
        (40, 4, 0.1, 1.0),
        (40, 4, 0.1, 10.0),
        (40, 4, 0.2, 1.0),
        (20, 5, 0.1, 1.0),
        (20, 5, 0.05, 1.0),
        (20, 5, 0.02, 1.0),
    )
)
SEARCHES = (THOROUGH, PUBLISHED, *SHORTER)


@dataclass(frozen=True)
class Subject:
    """A net, and how many of its test images are searched, drawn by the seed `sample`."""

    net: str
    data: str
    images: int
    sample: int | None = 0


def subjects(images: int) -> tuple[Subject, ...]:
    """The ODE-only net of each data set; the small one takes twice as many images."""
    return (
        Subject("digits-oon", "digits", 2 * images),
        Subject("mnist-oon", "mnist", images),
        Subject("cifar10-oon", "cifar10", images),
    )


def name(subjects: Sequence[Subject]) -> str:
    """Of this size of the study, so that rows of two sizes in one folder are not mixed."""
    return f"presets-{digest({'subjects': [asdict(one) for one in subjects], 'version': code_version()})[:8]}"


def crafts(subject: Subject, searches: Sequence[CarliniWagner] = SEARCHES) -> list[Craft]:
    """Every search on one net."""
    images = Slice(subject.data, "test", 0, subject.images, sample=subject.sample)
    return [Craft(label(search), search, View(subject.net, TOLERANCE), images) for search in searches]


def label(search: CarliniWagner) -> str:
    """The experiment of a search."""
    return (
        f"C&W, {search.steps} x {search.binary_search_steps}, rate {search.learning_rate:g}, "
        f"c {search.initial_constant:g}"
    )


def measure(
    folder: Path,
    progress: Progress,
    workers: int | None,
    subjects: Sequence[Subject],
    searches: Sequence[CarliniWagner] = SEARCHES,
) -> Ledger:
    """Do whatever is not yet in the ledger at `folder`; returns the ledger."""
    work = [
        (craft, float(search.steps * search.binary_search_steps))
        for subject in subjects
        for craft, search in zip(crafts(subject, searches), searches, strict=True)
    ]
    progress.stage("presets", sum(cost for _, cost in work))
    with Runner(folder, workers) as runner:
        runner.run(work, progress.advance, name(subjects))
    return runner.ledger


def summary(crafted: pl.DataFrame, subjects: Sequence[Subject], searches: Sequence[CarliniWagner] = SEARCHES) -> Table:
    """Success, distance beside the thorough search, and gradients, by search and net."""
    cells = []
    for subject, search in ((subject, search) for subject in subjects for search in searches):
        on_net = attacked(crafted.filter(pl.col("net") == subject.net))
        rows, best = (on_net.filter(pl.col("experiment") == label(wanted)) for wanted in (search, searches[0]))
        both = rows.join(best, on="image", suffix="_best").filter(pl.col("success") & pl.col("success_best"))
        ratio = intervals.mean_ratio(both["l2"].to_numpy(), both["l2_best"].to_numpy())
        cells.append(
            (
                subject.net,
                f"{search.steps} x {search.binary_search_steps}",
                f"{search.learning_rate:g}",
                f"{search.initial_constant:g}",
                intervals.rate(int(rows["success"].sum()), rows.height).percent,
                ratio.text(),
                f"{rows['gradient_calls'].mean():.0f}",
            )
        )
    return Table(
        "How short a C&W search may be",
        ("net", "steps x rounds", "learning rate", "first c", "success", "L2 over the thorough", "gradients"),
        tuple(cells),
        f"At tolerance {TOLERANCE:g}. L2: ratio of means over images that the search and the thorough one (the first of each "
        "net) both broke.",
    )
