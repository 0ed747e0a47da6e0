"""Two experiments side by side, on rows made by hand."""

import polars as pl
import pytest

from odefend.metrics.compare import compare
from odefend.metrics.rows import Rows

EMPTY = pl.DataFrame()


def rows(right, stands, model="net", at: float | None = 1e-3):
    """A model that has these images right when clean, and those of them under an attack."""
    images = [f"i{i}" for i in range(len(right))]
    shared = {"image": images, "model": model, "rtol": at, "crafted": None, "scale": 1.0, "status": 0}
    judged = pl.DataFrame(
        {**shared, "kind": "clean", "correct": right, "initially_wrong": None, "draw": 0, "attack": None}
    )
    crafted = pl.DataFrame(
        {
            **{name: shared[name] for name in ("image", "model", "rtol", "status")},
            "key": "k",
            "attack": "PGD",
            "epsilon": 0.1,
            "success": [not one for one in stands],
            "initially_wrong": [not one for one in right],
        }
    )
    kinds = {"attack": pl.String, "crafted": pl.String, "initially_wrong": pl.Boolean, "rtol": pl.Float64}
    judged = judged.with_columns(pl.col(name).cast(kind) for name, kind in kinds.items())
    judged = judged.with_columns(epsilon=pl.lit(None, pl.Float64), attacked_at=pl.lit(None, pl.Float64))
    return Rows(crafted, judged, EMPTY, EMPTY, EMPTY)


def test_comparison_by_hand():
    """Of ten images the first net holds six that the second loses, and none the other way round: p = 2 / 2^6."""
    first = rows([True] * 10, [True] * 8 + [False] * 2)
    second = rows([True] * 9 + [False], [True] * 2 + [False] * 8)
    found = {one.what: one for one in compare(first, second, [("net", "net")])}
    robust = found["net: robust accuracy, PGD at radius 0.1"]
    assert (robust.first.value, robust.second.value) == (0.8, 0.2)
    assert robust.difference.value == pytest.approx(0.6) and robust.difference.low > 0
    assert robust.p_value == pytest.approx(2 / 2**6)
    clean = found["net: accuracy at 0.001"]
    assert clean.difference.value == pytest.approx(0.1) and clean.p_value == 1.0


def test_only_what_both_were_asked_is_compared():
    """At other tolerances nothing is; a net without a solver stands beside every tolerance."""
    first = rows([True] * 4, [True] * 4)
    assert not compare(first, rows([True] * 4, [True] * 4, at=1.0), [("net", "net")])
    other = rows([True] * 2, [True, False], model="resnet", at=None)
    accuracy, robust = compare(first, other, [("net", "resnet")])
    assert accuracy.first.n == robust.first.n == 2
    assert robust.what == "net beside resnet: robust accuracy, PGD at radius 0.1"
