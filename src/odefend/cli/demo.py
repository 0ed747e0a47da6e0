"""The demo and its report."""

from pathlib import Path

from odefend.cli.evaluation import run_evaluation
from odefend.studies import demo


def run_demo(out: Path, images: int, workers: int | None, quiet: bool, as_json: bool) -> None:
    """The demo and its report."""
    run_evaluation(demo.evaluation(images), out, workers, quiet, None, as_json)
