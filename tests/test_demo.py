"""The demo at smoke size: the whole path, its report, and the promise that every number comes from rows."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import polars as pl
import pytest

from odefend.attacks import CarliniWagner
from odefend.errors import OutputError
from odefend.evaluation import Ledger, robustness
from odefend.progress import Silent
from odefend.report import figures, findings, tables
from odefend.studies import demo, demo_report

pytestmark = pytest.mark.xdist_group("demo")  # one process shares the measured folder

SMOKE = demo.Demo(
    images=10,
    clean=16,
    calibration=12,
    search=CarliniWagner(steps=12, binary_search_steps=2, initial_constant=10.0),
    steps=4,
    votes=5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    demo.measure(folder, SMOKE, Silent(), workers=1)
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    return demo_report.Rows(Ledger(folder / "ledger"))


def test_a_second_run_does_nothing_again(folder, rows):
    before = {path: path.stat().st_mtime_ns for path in (folder / "ledger" / "crafted").iterdir()}
    judged = {path.name for path in (folder / "ledger" / "judged").iterdir()}
    demo.measure(folder, SMOKE, Silent(), workers=1)
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "ledger" / "crafted").iterdir()}
    assert judged == {path.name for path in (folder / "ledger" / "judged").iterdir()}
    assert demo_report.Rows(Ledger(folder / "ledger")).scored.height == rows.scored.height


def test_the_report_is_one_self_contained_page(folder, rows):
    demo_report.write(Ledger(folder / "ledger"), folder / "report.html", 12.0)
    page = (folder / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!#|data:)', page), "nothing may be fetched"
    assert "<script" not in page and "@import" not in page and "url(http" not in page
    assert page.count("<svg") == 7
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        ET.fromstring(svg)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "figures must not share ids"
    for words in (
        "Who attacks, and how",
        "unrolled",
        "tolerance minus noise",
        "What should be doubted",
        "12 s",
        "threshold",
    ):
        assert words in page
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()


def test_the_same_rows_give_the_same_page(folder, tmp_path):
    for name in ("a", "b"):
        demo_report.write(Ledger(folder / "ledger"), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_rows_give_other_numbers(rows):
    """Flip every judgement: each table and figure made of them must change."""
    flipped = rows.judged.with_columns(correct=~pl.col("correct"))
    args = ("digits-oon", demo.TOLERANCES, rows.sigmas, demo.ATTACKED_AT)
    assert tables.recovery(flipped, *args).rows != tables.recovery(rows.judged, *args).rows
    assert (
        tables.matrix(rows.crafted, flipped, demo.MATRIX, "digits-oon", demo.EPSILON).rows
        != tables.matrix(rows.crafted, rows.judged, demo.MATRIX, "digits-oon", demo.EPSILON).rows
    )
    assert figures.accuracy_by_tolerance(flipped, *args) != figures.accuracy_by_tolerance(rows.judged, *args)
    broken = rows.crafted.with_columns(success=~pl.col("success"))
    assert figures.epsilon_curve(broken, ("digits-oon",)) != figures.epsilon_curve(rows.crafted, ("digits-oon",))
    scored = rows.scored.with_columns(score=-pl.col("score"))
    margin = [demo_report.MARGIN]
    assert tables.detectors(scored, margin, (1.0,)).rows != tables.detectors(rows.scored, margin, (1.0,)).rows


def test_numbers_of_the_recovery_table_by_hand(rows):
    table = tables.recovery(rows.judged, "digits-oon", demo.TOLERANCES, rows.sigmas, demo.ATTACKED_AT)
    fooled = rows.judged.filter(
        (pl.col("experiment") == "recovery")
        & (pl.col("net") == "digits-oon")
        & pl.col("attack_success")
        & (pl.col("scale") == 1.0)
        & (pl.col("rtol") == 1.0)
        & (pl.col("defense") == "tolerance")
    )
    share = 100 * sum(fooled["correct"].to_list()) / fooled.height
    (row,) = [row for row in table.rows if row[0] == "1"]
    assert row[2].startswith(f"{share:.1f} %")
    (attacked,) = [row for row in table.rows if "(attacked)" in row[0]]
    assert attacked[2].startswith("0.0 %"), "at the attacked tolerance every successful image fools the net"


def test_the_word_robust_waits_for_all_doubts_to_clear(rows):
    open_doubts = demo_report.doubts(rows, "digits-oon")
    args = (rows.crafted, "digits-oon", demo.EPSILON, rows.judged, demo.MATRIX)
    cleared = [doubt.__class__(doubt.question, doubt.finding, "clear") for doubt in open_doubts]
    red = [*cleared[:-1], cleared[-1].__class__("?", "!", "red")]
    unknown = [*cleared[:-1], cleared[-1].__class__("?", "!", "unknown")]
    assert "robust" in findings.verdict(cleared, *args)
    assert "robust" not in findings.verdict(red, *args) and "robust" not in findings.verdict(unknown, *args)


def test_findings_take_the_side_that_the_rows_take(rows):
    judged = rows.judged.with_columns(
        correct=pl.when(pl.col("defense") == "noise").then(False).otherwise(pl.col("rtol") != demo.ATTACKED_AT)
    )
    assert "significantly more than either noise at" in findings.against_noise(judged, "digits-oon", rows.sigmas)
    judged = rows.judged.with_columns(correct=pl.col("defense") == "noise")
    assert "At no tolerance more than noise of its dose" in findings.against_noise(judged, "digits-oon", rows.sigmas)
    judged = rows.judged.with_columns(correct=pl.lit(True))
    assert "cannot tell the tolerance from noise" in findings.against_noise(judged, "digits-oon", rows.sigmas)


def test_noise_is_matched_on_calibration_images_only(rows):
    calibration = rows.judged.filter(pl.col("experiment") == "doses")
    assert calibration["split"].unique().to_list() == ["validation"]
    tested = rows.judged.filter(pl.col("split") == "test")
    assert set(calibration["image"]) & set(tested["image"]) == set()
    held_out = rows.scored.filter(pl.col("kind") == "calibration")["image"]
    assert set(held_out) == set(calibration["image"]), "thresholds are set on the same held-out images"
    assert set(rows.scored.filter(pl.col("kind") != "calibration")["image"]) <= set(tested["image"])


def test_votes_see_clean_and_attacked_images_under_the_same_draws(rows):
    ballots = rows.judged.filter((pl.col("experiment") == "tolerance vote") & (pl.col("scale") == 1.0))
    pairs = ballots.filter((pl.col("kind") == "clean") & (pl.col("split") == "test")).join(
        ballots.filter(pl.col("kind") == "adversarial"), on=["image", "draw"], suffix="_adv"
    )
    assert pairs.height == 10 * 5 and (pairs["rtol"] == pairs["rtol_adv"]).all()


def test_a_folder_of_another_demo_is_refused(folder):
    with pytest.raises(OutputError, match="other settings"):
        demo.measure(folder, replace(SMOKE, images=12), Silent(), workers=1)


def test_a_stopped_demo_has_no_report(folder, tmp_path):
    assert demo.finished(folder).folder == folder / "ledger"
    (tmp_path / demo.MANIFEST).write_text((folder / demo.MANIFEST).read_text().replace("true", "false"))
    with pytest.raises(OutputError, match="was stopped"):
        demo.finished(tmp_path)
    (tmp_path / demo.MANIFEST).write_text("rubbish")
    with pytest.raises(OutputError, match="damaged"):
        demo.finished(tmp_path)


def test_the_worst_case_counts_every_attack_at_the_tested_tolerance(rows):
    """Mark one attack as breaking everything at 0.1: the worst case there is 0, and elsewhere what it was."""
    made = rows.crafted.with_columns(
        success=pl.when(pl.col("experiment") == "loose, tight gradients").then(True).otherwise("success")
    )
    args = (rows.judged, "digits-oon")
    assert robustness.worst_case(made, *args, 0.1, demo.EPSILON).value == 0
    assert robustness.worst_case(made, *args, 10.0, demo.EPSILON) == robustness.worst_case(
        rows.crafted, *args, 10.0, demo.EPSILON
    )
