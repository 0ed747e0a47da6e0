"""Studies: run them, and show their tables."""

from pathlib import Path

from odefend.cli.experiment import run_experiment
from odefend.errors import unknown
from odefend.studies import STUDIES


def run_study(name: str, out: Path, images: int | None, workers: int | None, quiet: bool, as_json: bool) -> None:
    """Run a study, on so many test images if it is told, and show what came of it."""
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    size = {} if images is None else {"images": images}
    run_experiment(STUDIES[name](**size), out, workers, quiet, None, as_json)
