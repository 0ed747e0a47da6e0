"""The study of the attacks at smoke size: it resumes, and its tables are made of its rows."""

import math

import polars as pl
import pytest

from odefend.attacks import CarliniWagner
from odefend.evaluation import Ledger
from odefend.progress import Silent
from odefend.solver import Status
from odefend.studies import attacks, attacks_report

pytestmark = pytest.mark.xdist_group("attack study")  # one process shares the measured folder

SEARCH = CarliniWagner(steps=10, binary_search_steps=1, learning_rate=0.1, initial_constant=20.0)
SMOKE = attacks.Setup(
    "digits-oon",
    "digits",
    pixels=64,
    images=8,
    low=4,
    drawn=4,
    watched=4,
    calibration=100,
    epsilon=0.2,
    steps=2,
    draws=2,
    shard=8,
    search=SEARCH,
    quick=SEARCH,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    attacks.measure(folder, SMOKE, Silent(), workers=1)
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    return attacks_report.Rows.of(Ledger(folder))


def test_a_second_run_does_nothing_again(folder, rows):
    files = sorted(folder.rglob("*.parquet"))
    assert files
    before = [path.stat().st_mtime_ns for path in files]
    attacks.measure(folder, SMOKE, Silent(), workers=1)
    assert sorted(folder.rglob("*.parquet")) == files
    assert [path.stat().st_mtime_ns for path in files] == before


def test_every_table_has_numbers_and_hangs_on_the_rows(rows):
    tables = attacks_report.summary(rows)
    assert [len(table.rows) for table in tables] == [4, 3, 2, 4, 4, 7]
    flipped = attacks_report.Rows(
        rows.crafted.with_columns(success=~pl.col("success"), l2=pl.col("l2") + 1),
        rows.judged.with_columns(correct=~pl.col("correct"), nfe=pl.col("nfe") + 7),
        rows.scored.with_columns(score=-pl.col("score")),
    )
    for table, other in zip(tables, attacks_report.summary(flipped), strict=True):
        assert table.rows != other.rows, table.title
        assert "nan" not in str(table.rows) + str(other.rows)


def test_the_rms_ball_is_the_l2_ball_of_root_n(rows):
    rms, l2 = rows.made("BIM, RMS"), rows.made("BIM, L2")
    assert l2["epsilon"][0] == pytest.approx(rms["epsilon"][0] * math.sqrt(64))
    assert rms["l2"].to_list() == pytest.approx(l2["l2"].to_list(), rel=1e-4)


def test_a_knowing_attack_won_only_what_the_detector_accepts(rows):
    """What was crafted past the detector at its threshold is there; what a plain attack made is counted if accepted."""
    table = attacks_report.detectors(rows)
    made = rows.made("plain PGD")
    scored = rows.scored.filter((pl.col("experiment") == "plain PGD") & (pl.col("detector") == "one-pass-margin"))
    held_out = rows.scored.filter((pl.col("kind") == "calibration") & (pl.col("detector") == "one-pass-margin"))
    level = sorted(held_out["score"].to_list())[-1]  # 1 % of 100 images: only what is above all of them may alarm
    score = dict(zip(scored["image"], scored["score"], strict=True))
    slipped = sum(won and score[image] <= level for image, won in zip(made["image"], made["success"], strict=True))
    (row,) = [row for row in table.rows if row[:2] == ("one-pass-margin", "1 %")]
    assert row[3].startswith(f"{100 * slipped / made.height:.1f} %")


def test_the_cap_holds_and_says_so(rows):
    capped = rows.shown("availability, radius 0.3, capped")
    cap, taken = capped["max_steps"][0], capped["accepted"] + capped["rejected"]
    clean = rows.shown("clean")
    assert cap == (clean["accepted"] + clean["rejected"]).max()
    assert (taken <= cap).all()
    uncapped = rows.shown("availability, radius 0.3").sort("image")
    over = (uncapped["accepted"] + uncapped["rejected"] > cap).to_list()
    assert [status == int(Status.MAX_STEPS) for status in capped.sort("image")["status"]] == over


def test_random_tolerance_is_judged_under_draws_of_its_own(rows):
    shown = rows.shown("random tolerance, knowing PGD")
    assert shown.group_by("image").agg(pl.col("rtol").n_unique())["rtol"].to_list() == [attacks.FRESH] * SMOKE.images
    assert shown["rtol"].is_between(attacks.RANGE.low, attacks.RANGE.high).all()
