"""The study of the detectors at smoke size: it resumes, its tables are made of its rows, and attackers slip past what they know."""

from pathlib import Path

import polars as pl
import pytest
import torch

from odefend.attacks import CarliniWagner
from odefend.data import tamper
from odefend.errors import InvalidInput
from odefend.evaluation import Ledger, Screen, Slice, View, Watch, watch
from odefend.models import load_image_model
from odefend.progress import Silent
from odefend.studies import detectors, detectors_report

pytestmark = pytest.mark.xdist_group("detector study")  # one process shares the measured folder

SMOKE = detectors.Setup(
    "digits-oon",
    "digits",
    (
        ("one-pass-margin", "{}"),
        ("noise-drop", '{"draws": 2, "sigma": 0.1}'),
        ("tolerance-drop", '{"draws": 2}'),
        ("principal-components", "{}"),
        ("separate-network", '{"epochs": 2}'),
    ),
    clean=24,
    benign=8,
    images=8,
    knowing=8,
    nearest=8,
    calibration=100,
    learn=100,
    attacked=16,
    shard=8,
    epsilon=0.2,
    search=CarliniWagner(steps=6, binary_search_steps=1, learning_rate=0.1, initial_constant=20.0),
    steps=2,
    restarts=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    detectors.measure(folder, SMOKE, Silent(), workers=1)
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    return detectors_report.Rows.of(Ledger(folder))


def test_a_second_run_does_nothing_again(folder, rows):
    files = sorted(folder.rglob("*.parquet"))
    assert files
    before = [path.stat().st_mtime_ns for path in files]
    detectors.measure(folder, SMOKE, Silent(), workers=1)
    assert sorted(folder.rglob("*.parquet")) == files
    assert [path.stat().st_mtime_ns for path in files] == before


def test_every_table_has_numbers_and_hangs_on_the_rows(rows):
    tables = detectors_report.summary(rows)
    assert [len(table.rows) for table in tables] == [5, 5, 5, 10, 5]
    turned = detectors_report.Rows(
        rows.crafted.with_columns(success=~pl.col("success"), l2=pl.col("l2") + 1),
        rows.scored.with_columns(score=-pl.col("score")),
    )
    for table, other in zip(tables, detectors_report.summary(turned), strict=True):
        assert sorted(table.rows) != sorted(other.rows), table.title
        assert not any("nan" in cell for row in table.rows for cell in row)


def test_supervised_detectors_see_no_image_that_they_are_tried_on(rows):
    lessons = rows.crafted.filter(pl.col("experiment") == "lessons")
    assert lessons["attack"].unique().to_list() == ["PGD"] and lessons.height == 16
    assert not set(lessons["image"]) & set(rows.crafted.filter(pl.col("experiment") != "lessons")["image"])
    with pytest.raises(InvalidInput, match="separate-network: expected images to learn from"):
        Watch("separate-network").open(SMOKE.view, Ledger(Path("none")))


def test_a_knowing_attack_won_only_what_the_detector_accepts(folder, rows):
    """Shown to the detector itself, whose draws the attacker did not have."""
    ledger, limits = Ledger(folder), detectors.limits(SMOKE, rows.scored)
    won = 0
    for unit in detectors.knowing(SMOKE, limits):
        assert unit.guard is not None
        made, images = ledger.read_shard("crafted", unit.key), ledger.read_images(unit.key)
        success = torch.tensor(made["success"].to_list())
        with torch.no_grad():
            score = unit.guard.watch.open(SMOKE.view, ledger).score(images, made["image"].to_list())
            said = SMOKE.view.open().predict(images)
        assert (score[success] <= unit.guard.threshold + 1e-6).all(), unit.experiment
        source = unit.guard.open(SMOKE.view, ledger).source
        if (other := detectors.fresh(unit.guard.watch)) is None:
            assert source is None
        else:
            with torch.no_grad():
                searched, again = (
                    one.score(images, made["image"].to_list()) for one in (source, other.open(SMOKE.view, ledger))
                )
            assert not torch.equal(searched, score) and not torch.equal(again, score), "draws of their own"
        assert (said.labels[success] != torch.tensor(made["label"].to_list())[success]).all()
        won += int(success.sum())
    assert won > 0, "else nothing is shown"


def test_pushed_images_are_scored_as_pushed(folder, rows):
    """At s = 1.25 the score is that of x + 1.25 (x_adv - x)."""
    pushed = rows.scored.filter((pl.col("detector") == "one-pass-margin") & (pl.col("scale") == 1.25))
    key = pushed["crafted"][0]
    ledger, made = Ledger(folder), rows.crafted.filter(pl.col("key") == key)
    clean = Slice("digits", "test", 0, 8).open()
    images = (clean.images + 1.25 * (ledger.read_images(key) - clean.images)).clamp(0, 1)
    with torch.no_grad():
        expected = dict(zip(made["image"].to_list(), (-SMOKE.view.open().predict(images).margin).tolist(), strict=True))
    found = dict(pushed.filter(pl.col("crafted") == key).select("image", "score").iter_rows())
    assert found == pytest.approx({image: expected[image] for image in found}, abs=1e-4)


def test_what_decides_a_score_is_in_the_key():
    one = detectors.screens(SMOKE)[0]
    others = [
        Screen("x", one.view, one.images, Watch("one-pass-margin", "{}", Slice("digits", "train", 0, 50))),
        Screen("x", View("digits-oon", 1e-2), one.images, one.watch),
        Screen("x", one.view, one.images, one.watch, scales=(1.1,)),
        Screen("x", one.view, one.images, Watch("noise-drop", '{"draws": 3}')),
    ]
    assert len({one.key, *(other.key for other in others)}) == 5


def test_what_a_model_beside_the_net_knows_is_in_the_key(monkeypatch):
    """Trained again, it gives other scores."""
    images = Slice("digits", "test", 0, 8)
    before = Screen("x", SMOKE.view, images, Watch("flow-likelihood")).key
    flow = load_image_model("digits-glow")
    with torch.no_grad():
        next(flow.parameters()).add_(1.0)
    monkeypatch.setattr("odefend.models.beside._loaded", lambda name: flow)
    watch._opened.cache_clear()
    assert Screen("x", SMOKE.view, images, Watch("flow-likelihood")).key != before
    watch._opened.cache_clear()


def test_images_are_changed_as_in_everyday_use(rows):
    some, changed = Slice("digits", "test", 0, 8).open(), Slice("digits", "test", 0, 8, "blur-0.5").open()
    assert changed.ids == some.ids and torch.equal(changed.labels, some.labels) and changed.digest != some.digest
    assert torch.equal(changed.pixels, tamper((255 * some.images).round().to(torch.uint8), some.ids, "blur-0.5"))
    benign = rows.scored.filter(pl.col("kind") == "benign")
    assert sorted(benign["experiment"].unique()) == sorted(detectors.BENIGN)
    blurred = benign.filter((pl.col("experiment") == "blur-0.5") & (pl.col("detector") == "one-pass-margin")).sort(
        "image"
    )
    with torch.no_grad():
        margin = SMOKE.view.open().predict(changed.images).margin
    expected = dict(zip(changed.ids, (-margin).tolist(), strict=True))
    assert blurred["score"].to_list() == pytest.approx([expected[name] for name in blurred["image"]], abs=1e-4)
