"""The study of the detectors at smoke size: who learns from what, who passes what, and what its tables are made of."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch

from odefend.data import tamper
from odefend.engine import Craft, DetectorSpec, ModelSpec, Predict, Reshown, Score, Slice, detector_specs
from odefend.errors import InvalidInput, UnknownName
from odefend.experiments import Expansion, run
from odefend.experiments.derive import derive
from odefend.ledger import Ledger
from odefend.metrics import METRICS, Rows
from odefend.models import load_image_model
from odefend.progress import Silent
from odefend.report.claims import judge
from odefend.report.filled import table
from odefend.studies import STUDIES
from odefend.studies.detectors import BENIGN, SEARCH, detectors

pytestmark = pytest.mark.xdist_group("detector study")  # one process shares the measured folder

SHORT = {"steps": 6, "binary_search_steps": 1, "learning_rate": 0.1, "initial_constant": 20.0}
small_detectors = partial(
    detectors,
    8,
    tried={
        "one-pass-margin": ("one-pass-margin", {}),
        "noise-drop": ("noise-drop", {"draws": 2, "sigma": 0.1}),
        "tolerance-drop": ("tolerance-drop", {"draws": 2}),
        "principal-components": ("principal-components", {}),
        "separate-network": ("separate-network", {"epochs": 2}),
    },
    search=SEARCH.model_copy(update={"settings": SHORT}),
    pgd={"steps": 2},
    combinations=("selective",),
    adaptive=1,
    nearest=4,
    clean=24,
    benign=8,
    calibration=100,
    learn=100,
    lessons=16,
    shard=50,
)
SMALL = small_detectors()
NET = ModelSpec("digits-oon", 1e-3)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    return run(SMALL, tmp_path_factory.mktemp("study"), Silent(), workers=1)


@pytest.fixture(scope="module")
def rows(ledger):
    return Rows.read(ledger, SMALL.name)


def test_every_table_hangs_on_the_rows(rows):
    turned = replace(
        rows,
        crafted=rows.crafted.with_columns(success=~pl.col("success"), l2=pl.col("l2") + 1),
        scored=rows.scored.with_columns(score=-pl.col("score")),
    )
    for part, count in zip(SMALL.tables, (5, 5, 5, 10, 10), strict=True):
        found, other = (table(part, some, SMALL) for some in (rows, turned))
        assert len(found.rows) == count and sorted(found.rows) != sorted(other.rows), part.title
        assert not any("nan" in cell for row in found.rows for cell in row)


def test_supervised_detectors_see_no_image_that_they_are_tried_on(rows):
    lessons = rows.crafted.filter(attack="lessons")
    assert lessons["algorithm"].unique().to_list() == ["PGD"] and lessons.height == 16
    assert not set(lessons["image"]) & set(rows.crafted.filter(pl.col("attack") != "lessons")["image"])
    with pytest.raises(InvalidInput, match="separate-network: expected images to learn from"):
        DetectorSpec("separate-network").open(NET, Ledger(Path("none")))


def test_an_adaptive_attack_won_only_what_the_detector_accepts(ledger, rows):
    """Shown to the detector itself, whose draws the attacker did not have; other draws yet judge it."""
    levels = {name: derive(SMALL, f"{name}-threshold", rows) for name in SMALL.detectors}
    expansion, won = Expansion(SMALL, {f"{name}-threshold": found for name, found in levels.items()}), 0
    for task in (*expansion.crafts("PGD, adaptive"), *expansion.crafts("C&W, adaptive")):
        unit = task.unit
        assert isinstance(unit, Craft) and unit.aware is not None
        made, images = ledger.read_shard("crafted", unit.key), ledger.read_images(unit.key)
        success, ids = torch.tensor(made["success"].to_list()), made["image"].to_list()
        detector, guard = unit.aware.detector, unit.aware.open(NET, ledger)
        with torch.no_grad():
            score, again = (one.open(NET, ledger).score(images, ids) for one in (detector, detector.resampled()))
            said = NET.open().predict(images)
            if guard.source is not None:
                searched = guard.source.score(images, ids)
                assert not torch.equal(searched, score) and not torch.equal(again, score), "draws of their own"
            else:
                assert torch.equal(again, score)
        assert (score[success] <= unit.aware.threshold + 1e-6).all(), task.label
        assert (said.labels[success] != torch.tensor(made["label"].to_list())[success]).all()
        won += int(success.sum())
    assert won > 0, "else nothing is shown"


def test_the_worst_case_is_over_oblivious_and_adaptive_attacks_judged_anew(rows):
    """By hand: an image is lost where either attack fools the net and the detector accepts it, under fresh draws if it knew it."""
    (part,) = (one for one in SMALL.tables if one.title.startswith("Success of PGD"))
    found = {row[:2]: row[4] for row in table(part, rows, SMALL).rows}
    for detector in SMALL.detectors:
        for share in (0.01, 0.05):
            cell = rows.where({"detector": detector, "alarms": share, "attack": ["PGD", "PGD, adaptive"]})
            aims = [one for one in (0.01, 0.05) if one >= share]
            made = rows.crafted.filter(
                (pl.col("attack") == "PGD")
                | ((pl.col("attack") == "PGD, adaptive") & (pl.col("past") == detector) & pl.col("alarms").is_in(aims))
            ).filter(~pl.col("initially_wrong"))
            calibration = cell.scored.filter(kind="calibration")["score"].sort(descending=True)
            level = calibration[int(share * (len(calibration) + 1)) - 1]
            scores = rows.scored.filter(detector=detector, kind="adversarial").filter(pl.col("score") <= level)
            lost = made.filter("success").join(
                scores, left_on=["key", "image"], right_on=["crafted", "image"], how="semi"
            )
            share_lost = lost["image"].n_unique() / made["image"].n_unique()
            assert found[detector, f"{100 * share:g} %"].startswith(f"{100 * share_lost:.1f} %"), (detector, share)


def test_nothing_is_said_of_attacks_that_were_not_tried(rows):
    untried = replace(rows, crafted=rows.crafted.filter(pl.col("attack") != "PGD, adaptive"))
    (part,) = (one for one in SMALL.tables if one.title.startswith("Success of PGD"))
    for row in table(part, untried, SMALL).rows:
        assert "-" not in row[2:4] and row[4:] == ("-",)


def test_a_row_is_about_the_images_that_all_its_attacks_were_tried_on(rows):
    (part,) = (one for one in SMALL.tables if one.title.startswith("Success of C&W"))
    tried = rows.crafted.filter(pl.col("attack") == "C&W, adaptive", ~pl.col("initially_wrong"))["image"].n_unique()
    cells = [
        line[head]["n"]
        for line in table(part, rows, SMALL).numbers
        for head in ("no detector", "oblivious", "adaptive")
    ]
    assert set(cells) == {tried} and tried < rows.crafted.filter(attack="C&W")["image"].n_unique()


def test_detectors_are_sorted_by_the_area_at_the_first_scale(rows):
    part = SMALL.tables[0]
    areas = [line["AUROC, s = 1"]["value"] for line in table(part, rows, SMALL).numbers]
    assert areas == sorted(areas, reverse=True) and len(set(areas)) > 1
    with pytest.raises(UnknownName, match="column to sort How detectors of digits-oon rank"):
        table(part.model_copy(update={"sort": "AUROC, s = 2"}), rows, SMALL)


@pytest.mark.parametrize("study", ["detectors", "detectors-mnist"])
def test_what_the_page_says_of_the_vote_is_confirmed_by_the_committed_rows(study):
    experiment = STUDIES[study]()
    rows = Rows.read(Ledger(Path(__file__).parent.parent / "results" / study), study)
    assert [judge(claim, rows).outcome for claim in experiment.claims] == ["confirmed"] * 2


def test_scaled_images_are_scored_as_scaled(ledger, rows):
    """At s = 1.25 the score is that of x + 1.25 (x_adv - x)."""
    scaled = rows.scored.filter(detector="one-pass-margin", scale=1.25)
    key = str(scaled["crafted"][0])
    made, clean = rows.crafted.filter(key=key), Slice("digits", "test", 0, 8, sample=0).open()
    images = (clean.images + 1.25 * (ledger.read_images(key) - clean.images)).clamp(0, 1)
    with torch.no_grad():
        expected = dict(zip(made["image"].to_list(), (-NET.open().predict(images).margin).tolist(), strict=True))
    found = dict(scaled.filter(crafted=key).select("image", "score").iter_rows())
    assert found == pytest.approx({image: expected[image] for image in found}, abs=1e-4)


def test_images_are_changed_as_in_everyday_use(rows):
    some, changed = (Slice("digits", "test", 0, 8, change, sample=0).open() for change in (None, "blur-0.5"))
    assert changed.ids == some.ids and torch.equal(changed.labels, some.labels) and changed.digest != some.digest
    assert torch.equal(changed.pixels, tamper((255 * some.images).round().to(torch.uint8), some.ids, "blur-0.5"))
    benign = rows.scored.filter(kind="benign", detector="one-pass-margin")
    assert sorted(benign["data"].unique()) == sorted(BENIGN) == sorted(benign["change"].unique())
    with torch.no_grad():
        margin = NET.open().predict(changed.images).margin
    expected = dict(zip(changed.ids, (-margin).tolist(), strict=True))
    assert dict(benign.filter(change="blur-0.5").select("image", "score").iter_rows()) == pytest.approx(
        expected, abs=1e-4
    )
    metric = METRICS["benign alarms"]
    level = METRICS["false alarms"].of(rows.where({"detector": "one-pass-margin", "data": "blur-0.5"}))
    assert metric.of(rows.where({"detector": "one-pass-margin", "data": "blur-0.5"})).n == 8 and level.n == 0


def test_what_decides_a_score_is_in_the_key(monkeypatch):
    images = Slice("digits", "test", 0, 8)
    one = Score(NET, images, DetectorSpec("one-pass-margin"))
    others = [
        Score(replace(NET, tolerance=1e-2), images, one.detector),
        Score(NET, replace(images, change="blur-0.5"), one.detector),
        Score(NET, images, one.detector, reshown=Reshown((1.1,))),
        Score(NET, images, one.detector, calibrating=True),
        Score(NET, images, DetectorSpec("noise-drop")),
        Score(NET, images, DetectorSpec("noise-drop", '{"draws": 3}')),
        Score(NET, images, DetectorSpec("noise-drop").resampled()),
        Score(NET, images, DetectorSpec("step-trace", learn=images)),
        Score(NET, images, DetectorSpec("step-trace", learn=replace(images, start=1))),
        Predict(NET, images),
    ]
    assert len({one.key, *(other.key for other in others)}) == 1 + len(others)
    # A model beside the net, trained again, gives other scores.
    before = Score(NET, images, DetectorSpec("flow-likelihood")).key
    flow = load_image_model("digits-glow")
    with torch.no_grad():
        next(flow.parameters()).add_(1.0)
    monkeypatch.setattr("odefend.models.beside._loaded", lambda name: flow)
    detector_specs._opened.cache_clear()
    assert Score(NET, images, DetectorSpec("flow-likelihood")).key != before
    detector_specs._opened.cache_clear()
