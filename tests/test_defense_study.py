"""The study of the defenses at smoke size: every defense meets the same attacks, beside noise, and tables are made of rows."""

import json
import math
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from odefend.experiments import Expansion, run
from odefend.experiments.read import check_names
from odefend.ledger import canonical
from odefend.metrics import METRICS, Rows
from odefend.progress import Silent
from odefend.report.drawn import figure
from odefend.report.filled import table
from odefend.studies.defenses import DIGITS, MNIST, defenses
from odefend.studies.robustness import ADAPTIVE

pytestmark = pytest.mark.xdist_group("defense study")

IN_BALL = ("PGD", "PGD, transferred", *ADAPTIVE)
SMALL = defenses(
    6,
    points={
        "tolerance": ({"tolerance": 10.0}, 0.05),
        "random-tolerance": ({"distribution": {"low": 1e-2, "high": 10.0}}, 0.1),
        "input-noise": ({"sigma": 0.1}, None),
    },
    steps=1,
    followed=(1, 2),
    search=(5, 1),
    nearest=3,
    judged=3,
    votes=2,
    shard=6,
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return Rows.read(run(SMALL, tmp_path_factory.mktemp("defenses"), Silent(), workers=1), SMALL.name)


@pytest.mark.parametrize(("place", "points"), [("defenses", DIGITS), ("defenses-mnist", MNIST)])
def test_operating_points_are_those_that_were_chosen(place, points):
    """On validation images, or where all cost too much what costs least; the noise is the nearest of few levels, in ratio."""
    levels = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
    for name, (settings, sigma) in points.items():
        path = Path(__file__).parent.parent / "results" / place / "points" / f"{name}.json"
        told = json.loads(path.read_text())
        tried = {canonical(one["defense"]["settings"]): one for one in told["tried"]}
        least = min(tried, key=lambda one, tried=tried: tried[one]["lost"]["value"])
        chosen = canonical(told["chosen"]["settings"]) if told["chosen"] else least
        assert canonical(settings) == chosen, name
        if name != "input-noise":
            assert sigma == min(levels, key=lambda one: abs(math.log(one / tried[chosen]["sigma"]))), name


def test_noise_beside_a_vote_costs_as_much():
    (part, *_) = SMALL.tables
    check_names(SMALL)
    found = {row.model: row.other.model for row in part.rows if not isinstance(row, str) and row.other}
    assert found == {
        "tolerance": "input-noise, sigma 0.05",
        "random-tolerance": "input-noise",
        "random-tolerance, averaged": "input-noise, averaged",
        "random-tolerance, majority-vote": "input-noise, majority-vote",
    }
    expansion = Expansion(SMALL)
    for ours, theirs in found.items():
        (one,), (other,) = expansion.models(str(ours)), expansion.models(str(theirs))
        assert one.passes == other.passes == (2 if "," in str(ours) else 1)


def test_every_defense_and_its_noise_meet_the_same_attacks_on_the_same_images(rows):
    """As many runs of as many steps, and the bare net too: what differs is whose gradients, and along how many draws. A vote meets
    what was made on that whose draws it takes."""
    models = [name for name in SMALL.models if name != "twin"]
    for name in models:
        shown = rows.judged.filter(model=name, kind="adversarial").filter(pl.col("attack").is_in(IN_BALL))
        assert set(shown.select("image", "attack").rows()) == {
            (image, attack) for image in rows.crafted["image"].unique() for attack in IN_BALL
        }, name
        adaptive = shown.filter(pl.col("attack").is_in(list(ADAPTIVE)))["made_on"].unique().to_list()
        assert adaptive == [name.removesuffix(", averaged").removesuffix(", majority-vote")]
        random = "noise" in name or "random" in name
        assert shown["draw"].n_unique() == (3 if random else 1)


def test_the_ball_by_hand(rows):
    """Right under the worst attack; of a random defense, for each draw the attack is chosen by the other two."""
    found = table(SMALL.tables[0], rows, SMALL)
    cells = dict(zip([row[0] for row in found.rows], found.numbers, strict=True))
    for name in ("tolerance", "input-noise", "random-tolerance, averaged"):
        shown = rows.judged.filter(model=name).filter(pl.col("attack").is_in(IN_BALL))
        shares = []
        for _, mine in shown.group_by("image"):
            draws = sorted(mine["draw"].unique())
            for draw in draws:
                others = mine.filter(pl.col("draw") != draw) if len(draws) > 1 else mine
                told = others.group_by("crafted").agg(pl.col("correct").sum(), pl.col("true_margin").sum())
                best = min(told.rows(), key=lambda one: (one[1], one[2], str(one[0])))[0]
                shares.append(mine.filter(draw=draw, crafted=best)["correct"].item())
        assert cells[name]["all attacks"]["value"] == pytest.approx(sum(shares) / len(shares)), name


def test_rows_are_compared_on_the_images_that_met_all_attacks(rows):
    """Two images that one defense did not meet in one attack are in no cell."""
    gone = sorted(rows.crafted["image"].cast(pl.String).unique())[:2]
    unmet = (pl.col("model") == "tolerance") & (pl.col("attack") == "PGD, margin") & pl.col("image").is_in(gone)
    fewer = replace(rows, crafted=rows.crafted.filter(~unmet), judged=rows.judged.filter(~unmet))
    found = table(SMALL.tables[0], fewer, SMALL)
    assert {cell["n"] for line in found.numbers for cell in line.values()} == {4}
    assert "Right, of 4 test images that met every attack in an L-inf ball of 0.1" in found.note


def test_the_tables_and_the_figure(rows):
    ball, far, more = (table(part, rows, SMALL) for part in SMALL.tables)
    names = ["none", "tolerance"]
    names += [
        f"{name}{how}" for name in ("random-tolerance", "input-noise") for how in ("", ", averaged", ", majority-vote")
    ]
    assert [row[0] for row in ball.rows] == names == [row[0] for row in far.rows]
    assert [row[0] for row in more.rows] == names[2:]
    assert ball.rows[0][8] == "" and "[" in ball.rows[1][-1] and ball.rows[-1][-1] == "", (
        "beside the bare net, beside noise"
    )
    assert far.rows[0][-1] == "-" and "[" in far.rows[1][-1]
    drawn = figure(SMALL.figures[0], rows)
    assert all(word in drawn for word in (*names, "oblivious attacks", "all attacks, noise of equal dose"))
    best = METRICS["accuracy under attack"].of(
        rows.where({"model": "tolerance", "attack": ["PGD", "PGD, transferred"]})
    )
    assert best.value >= ball.numbers[1]["all attacks"]["value"]
