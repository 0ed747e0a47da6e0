"""The demo and its report."""

from pathlib import Path

from odefend.cli.experiment import run_experiment
from odefend.studies.demo import demo


def run_demo(out: Path, images: int, workers: int | None, quiet: bool, as_json: bool) -> None:
    """The demo and its report."""
    run_experiment(demo(images), out, workers, quiet, None, as_json)
