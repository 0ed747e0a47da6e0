"""Two experiments side by side."""

from pathlib import Path

from odefend.cli.experiment import experiments_in
from odefend.cli.output import print_json, show
from odefend.errors import OutputError
from odefend.experiments import Experiment, read_experiment
from odefend.ledger import Ledger
from odefend.metrics import Rows
from odefend.metrics.compare import compare
from odefend.report import Table
from odefend.report.cells import text


def run_compare(first: Path, second: Path, as_json: bool) -> None:
    """Two experiments side by side, their models paired by name, or if they have no name in common in the order of their files."""
    (one, mine), (other, theirs) = (_opened(folder) for folder in (first, second))
    shared = [name for name in one.models if name in other.models]
    pairs = [(name, name) for name in shared] or list(zip(one.models, other.models, strict=False))
    found = compare(mine, theirs, pairs)
    if not found:
        raise OutputError(f"{first} and {second}: expected attacks of one name on the same images, found none in both.")
    if as_json:
        print_json(
            [{**vars(cell), **{k: vars(getattr(cell, k)) for k in ("first", "second", "difference")}} for cell in found]
        )
        return
    rows = (
        (
            cell.what,
            cell.first.percent,
            cell.second.percent,
            text(cell.difference, "points"),
            str(cell.difference.n),
            f"{cell.p_value:.2g}",
        )
        for cell in found
    )
    show(
        Table(
            f"{one.name} ({first}) beside {other.name} ({second})",
            ("share of images", "first", "second", "difference, points", "images", "p"),
            tuple(rows),
            "Paired by image. p: exact McNemar test, not corrected for the number of rows.",
        )
    )


def _opened(folder: Path) -> tuple[Experiment, Rows]:
    """The experiment in a folder, and its rows."""
    names = experiments_in(folder) if folder.is_dir() else []
    if len(names) != 1:
        raise OutputError(
            f"{folder}: expected a folder with one experiment that `odefend evaluate` wrote, found {', '.join(names) or 'none'}."
        )
    experiment = read_experiment(folder / f"{names[0]}.json")
    return experiment, Rows.read(Ledger(folder / "ledger"), experiment.name)
