"""The demo: two small nets trained on real digits, attacked, judged over tolerances, and set against the controls.

What is attacked, how, under what it is judged, and why, is said in demo.toml beside this file.
"""

from pathlib import Path

from odefend.evaluation import Evaluation, read_evaluation

FILE = Path(__file__).with_name("demo.toml")


def evaluation(images: int | None = None) -> Evaluation:
    """The demo, on so many images."""
    return read_evaluation(FILE, {} if images is None else {"images": images})
