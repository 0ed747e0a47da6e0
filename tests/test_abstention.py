"""An answer that a solver gave up is no attack's success, and lost accuracy: in every number that tells what withstands."""

import polars as pl
import pytest

from odefend.metrics import METRICS
from odefend.metrics.rows import Rows

# Of ten images one was wrong before, four fool the net, two make its solver give up, and three are answered rightly.
WRONG, FOOLED, GIVEN_UP = [True] + [False] * 9, [False] + [True] * 4 + [False] * 5, [0] * 5 + [1] * 2 + [0] * 3
IMAGES = [f"i{number}" for number in range(10)]
MADE = pl.DataFrame(
    {
        "key": "k",
        "image": IMAGES,
        "experiment": "PGD",
        "trial": "PGD",
        "attack": "PGD",
        "settings": "{}",
        "norm": "linf",
        "net": "n",
        "epsilon": 0.1,
        "rtol": 1e-3,
        "success": FOOLED,
        "initially_wrong": WRONG,
        "status": GIVEN_UP,
    }
)
SHOWN = pl.DataFrame({"image": IMAGES, "kind": "clean", "experiment": "clean", "rtol": 1e-3, "draw": 0, "status": 0})
SHOWN = (
    SHOWN.cast({"status": pl.Int64})
    .with_columns(crafted=pl.lit(None, pl.String), scale=1.0, initially_wrong=pl.Series(WRONG))
    .with_columns(correct=~pl.col("initially_wrong"))
)


def test_robust_accuracy_counts_only_answers():
    shown = SHOWN.with_columns(attack=pl.lit(None, pl.String), epsilon=pl.lit(None, pl.Float64), true_margin=0.0)
    rows = Rows(MADE, shown, shown.clear(), shown.clear(), shown.clear())
    assert METRICS["robust accuracy"].of(rows).value == pytest.approx(3 / 10)
    again = shown.with_columns(kind=pl.lit("adversarial"), crafted=pl.lit("k"), status=pl.Series(GIVEN_UP))
    again = again.with_columns(MADE["attack"], MADE["epsilon"])
    again = again.with_columns(correct=~pl.Series(FOOLED) & ~pl.Series(WRONG) & (pl.col("status") == 0))
    judged = Rows(MADE, pl.concat([shown, again]), shown.clear(), shown.clear(), shown.clear())
    assert METRICS["robust accuracy"].of(judged).value == pytest.approx(3 / 10)
    assert METRICS["fooled"].of(judged).value == pytest.approx(4 / 9), "which only attacks are credited with"
