"""Hardening: a plan that fits the minutes, goes on as it was begun, and tells before from after; and the study of hardened nets."""

import json
import shutil
from dataclasses import replace

import polars as pl
import pytest
import torch

import odefend
from odefend.attacks import AutoAttack
from odefend.cli.study import _sized
from odefend.errors import CheckpointError, InvalidInput, OutputError, UnknownName
from odefend.evaluation import Craft, Ledger, Slice, View
from odefend.evaluation.plan import work
from odefend.evaluation.views import opened_net
from odefend.progress import Silent
from odefend.studies import defenses, hardened, hardened_report
from odefend.studies.hardening import harden, measured, plan
from odefend.training import Trial, read_recipe, train

QUICK = {"options": {"in_channels": 1, "width": 4, "classes": 10}, "epochs": 1, "batch_size": 256, "images": 300}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A net, trained a little."""
    folder = tmp_path_factory.mktemp("small")
    return str(train(read_recipe("digits-res", overrides=QUICK | {"epochs": 30}), folder))


def second_long(recipe, steps, progress=None):
    """As if each step took a second."""
    return Trial(1.0, steps, "cpu", 0.0)


def test_as_many_epochs_as_fit(small, tmp_path, monkeypatch):
    """Two steps of a second make an epoch, and nine tenths of the time are for them."""
    monkeypatch.setattr("odefend.studies.hardening.try_out", second_long)
    recipe = plan(small, "adversarial", 0.1, 1.0, tmp_path / "a", Silent())
    assert recipe.epochs == 27 and recipe.begin == small and recipe.name == "digits-res-adversarial"
    assert recipe.adversarial is not None and recipe.adversarial.epsilon == 0.1 and recipe.adversarial.ramp == 13
    assert recipe.options == QUICK["options"] and recipe.noise is None
    smooth = plan(small, "smoothing", 0.3, 1.0, tmp_path / "b", Silent())
    assert smooth.noise is not None and smooth.noise.sigma == 0.3 and smooth.adversarial is None
    with pytest.raises(InvalidInput, match=r"minutes: expected at least 1, which an epoch takes here, got 0\.01"):
        plan(small, "adversarial", 0.1, 0.01, tmp_path / "c", Silent())
    for minutes in (0.0, float("inf"), float("nan")):
        with pytest.raises(InvalidInput, match="minutes: expected a time above 0, such as 10, got"):
            plan(small, "adversarial", 0.1, minutes, tmp_path / "c", Silent())
    assert not (tmp_path / "c").exists()


def test_a_plan_is_kept(small, tmp_path, monkeypatch):
    monkeypatch.setattr("odefend.studies.hardening.try_out", second_long)
    first = plan(small, "adversarial", 0.1, 1.0, tmp_path, Silent())
    monkeypatch.setattr("odefend.studies.hardening.try_out", None)  # not asked again, whatever the machine does now
    assert plan(small, "adversarial", 0.1, 1.0, tmp_path, Silent()) == first
    with pytest.raises(OutputError, match="of another hardening"):
        plan(small, "adversarial", 0.2, 1.0, tmp_path, Silent())
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        plan(small, "adversarial", 0.1, 1.0, tmp_path, Silent())


def test_a_net_that_does_not_tell_its_recipe_is_refused(small, tmp_path):
    for suffix in ("json", "safetensors"):
        shutil.copy(small.replace("safetensors", suffix), tmp_path / f"net.{suffix}")
    card = json.loads((tmp_path / "net.json").read_text())
    (tmp_path / "net.json").write_text(json.dumps(card | {"recipe": {"unknown": 1}}))
    with pytest.raises(InvalidInput, match="expected a net with a card that tells its recipe"):
        plan(str(tmp_path / "net.safetensors"), "smoothing", 0.1, 1.0, tmp_path / "out", Silent())
    (tmp_path / "net.json").write_text(
        json.dumps(card | {"recipe": card["recipe"] | {"data_options": {"tampering": "median-3"}}})
    )
    opened_net.cache_clear()
    with pytest.raises(InvalidInput, match="expected a net trained on a data set without options"):
        plan(str(tmp_path / "net.safetensors"), "smoothing", 0.1, 1.0, tmp_path / "out", Silent())
    for strength in (0.0, 1.5):
        with pytest.raises(InvalidInput, match="strength: expected"):
            plan(small, "smoothing", strength, 1.0, tmp_path / "out", Silent())
    with pytest.raises(UnknownName, match="Did you mean 'smoothing'"):
        plan(small, "smooting", 0.1, 1.0, tmp_path / "out", Silent())
    with pytest.raises(CheckpointError):
        plan(str(tmp_path / "none.safetensors"), "smoothing", 0.1, 1.0, tmp_path / "out", Silent())


@pytest.mark.parametrize("way", ["adversarial", "smoothing"])
def test_before_and_after(way, small, tmp_path, monkeypatch):
    """The table is about both nets, and rows say the same as the nets do."""
    monkeypatch.setattr("odefend.studies.hardening.try_out", second_long)
    monkeypatch.setattr("odefend.studies.hardening.TRAINING", 0.1)
    monkeypatch.setattr(hardened, "attacks", lambda setup, epsilon: few(epsilon))
    found = harden(small, way, 0.2, 1.0, tmp_path, Silent(), images=20, workers=1)
    (before, after), columns = found.table.rows, found.table.columns
    assert before[0] == "digits-res" and after[0] == f"digits-res-{way}"
    some = odefend.digits("test")[:20]
    for row, name in ((before, small), (after, str(found.weights))):
        right = odefend.load(name).predict(some.images).correct(some.labels).sum().item()
        assert row[1].startswith(f"{100 * right / 20:.1f} %") and row[-1] == "0.0"
        net, other = odefend.load(name), odefend.load(small if name != small else found.weights)
        broken = torch.zeros(20, dtype=torch.bool)
        for attack, source in (
            *((attack, None) for _, attack, _ in few(found.setup.epsilons[-1])),
            (blind(found.setup), other),
        ):
            made = attack(net, some.images, some.labels, ids=some.ids, source=source)
            broken |= made.success | made.initially_wrong
        at = columns.index(f"worst case, L-inf {found.setup.epsilons[-1]:g}")
        assert row[at].startswith(f"{100 * (~broken).double().mean().item():.1f} %")
    assert ("certified, L2 radius 0.2" in columns) == (way == "smoothing")
    files = sorted(tmp_path.rglob("*.parquet"))
    times = [path.stat().st_mtime_ns for path in files]
    assert harden(small, way, 0.2, 1.0, tmp_path, Silent(), images=20, workers=1).table == found.table
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.parquet"))] == times


def blind(setup):
    return odefend.PGD(setup.epsilons[-1], steps=setup.steps // 2)


def few(epsilon):
    return (
        ("PGD", odefend.PGD(epsilon, steps=3), 20),
        ("PGD, margin", odefend.PGD(epsilon, steps=3, loss="margin"), 20),
    )


def test_what_is_measured(small, tmp_path):
    recipe = read_recipe("digits-res", overrides={"adversarial": {"epsilon": 0.2}})
    setup = measured("digits-res", tmp_path / "net.safetensors", recipe, 50)
    assert setup.epsilons == (0.1, 0.2) and not setup.smoothed and setup.images == 50
    assert [name for name, _, count in hardened.attacks(setup, 0.1) if count] == ["PGD", "PGD, margin"]


SMOKE = hardened.Setup(
    "digits",
    ("digits-res-adversarial", "digits-res"),
    (hardened.Smoothed("digits-res-noise", 0.25),),
    (("digits-res-ccat", "confidence"), ("digits-res", "one-pass-margin")),
    (0.1, 0.2),
    images=16,
    thorough=8,
    steps=3,
    restarts=1,
    auto=2,
    queries=5,
    standard=4,
    certified=8,
    draws=40,
    calibration=100,
    refused=16,
    shard=16,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    pytest.importorskip("pyautoattack", reason="needs the extra attacks")
    folder = tmp_path_factory.mktemp("hardened")
    hardened.measure(folder, SMOKE, Silent(), 1)
    return folder


def test_the_worst_case_is_no_better_than_any_attack(study):
    rows = hardened_report.Rows.of(Ledger(study), SMOKE.name)
    for net in SMOKE.nets:
        for epsilon in SMOKE.epsilons:
            worst = rows.worst(net, epsilon, SMOKE)
            assert worst.height == SMOKE.thorough
            for name in hardened.tried(SMOKE):
                each = rows.stands(net, epsilon, (name,)).join(worst, on="image", suffix="_worst")
                assert each.height == SMOKE.thorough and not (each["stands_worst"] & ~each["stands"]).any()
    made = rows.crafted.filter(
        (pl.col("net") == "digits-res") & (pl.col("epsilon") == 0.2) & (pl.col("experiment") == "PGD")
    )
    assert (
        rows.stands("digits-res", 0.2, ("PGD",))["stands"].sum()
        == 16 - (made["success"] | made["initially_wrong"]).sum()
    )


def test_refusal_is_set_on_clean_images_and_attacked_together(study):
    rows = hardened_report.Rows.of(Ledger(study), SMOKE.name)
    found = hardened.limits(SMOKE, rows.scored)
    for net, name in SMOKE.refusing:
        held_out = rows.scored.filter((pl.col("net") == net) & (pl.col("kind") == "calibration"))["score"]
        for allowed in hardened.ALARMS:
            assert (held_out > found[net, allowed][0]).sum() <= allowed * len(held_out)
        guards = rows.crafted.filter((pl.col("net") == net) & pl.col("guard").is_not_null())["guard"].unique().to_list()
        assert len(guards) == 4 and all(json.loads(one)["watch"]["detector"] == name for one in guards)
    assert found["digits-res", 0.01][0] >= found["digits-res", 0.05][0]


def test_the_tables_of_the_study(study, tmp_path):
    rows = hardened_report.Rows.of(Ledger(study))
    balls, distances, auto, certified, refusing = hardened_report.summary(rows, SMOKE)
    assert "shorter than in AutoAttack's standard version (5000 queries, 100 steps)" in balls.note
    full = hardened_report.in_balls(rows, replace(SMOKE, auto=100, queries=5000))
    assert "steps, the parts of AutoAttack's standard version" in full.note
    assert len(balls.rows) == 4 and len(refusing.rows) == 4
    for net, alone, together in auto.rows:
        made = rows.crafted.filter((pl.col("experiment") == "AutoAttack") & (pl.col("net") == net))
        assert made["epsilon"].unique().to_list() == [0.2] and made.height == 4
        left = (~(made["success"] | made["initially_wrong"])).sum()
        assert alone.startswith(f"{25 * left:.1f} %") and float(together.split()[0]) <= 25 * left
    (row,) = certified.rows
    shares = [float(cell.split()[0]) for cell in row[1:7] if cell != "-"]
    assert 0 < len(shares) < 6 and shares == sorted(shares, reverse=True) and row[-1] == "0"
    bare = hardened_report.summary(rows, replace(SMOKE, smoothed=(), refusing=()))
    assert [table.title for table in bare] == [balls.title, distances.title, auto.title]
    # The net that may refuse loses nothing in clean accuracy by it, so both columns are there to see.
    assert {"clean images refused", "clean accuracy"} <= set(refusing.columns)


def test_all_attacks_are_united_image_by_image_whoever_met_them():
    """Four images. PGD breaks the first, the gradient of another net the second, Square, which only two met, the third: of all
    attacks one of four is left, of those two one."""
    met = {"PGD": "abcd", "PGD, margin": "abcd", "adaptive": "abcd", "Square": "cd", "APGD and FAB": "cd"}
    broken = {"PGD": "a", "adaptive": "b", "Square": "c"}
    crafted = pl.DataFrame(
        {
            "experiment": name,
            "net": "digits-res",
            "epsilon": 0.2,
            "image": image,
            "success": image in broken.get(name, ""),
            "initially_wrong": False,
            "status": 0,
        }
        for name, images in met.items()
        for image in images
    )
    clean = pl.DataFrame({"experiment": ["clean"] * 4, "net": "digits-res", "image": list("abcd"), "correct": True})
    rows = hardened_report.Rows(crafted, clean, pl.DataFrame(), pl.DataFrame())
    table = hardened_report.in_balls(rows, replace(SMOKE, nets=("digits-res",), epsilons=(0.2,)))
    assert [cell.split(" [")[0] for cell in table.rows[0][3:]] == [
        *("75.0 %", "100.0 %", "75.0 %", "50.0 %", "100.0 %"),
        *("25.0 %", "50.0 %"),
    ]
    assert "5 queries" in table.note and "shorter than in AutoAttack's standard version" in table.note


def test_how_far_a_net_is_broken_counts_those_that_stand():
    """Five images of a net: one wrong anyhow, three broken at L2 distances of 1, 2 and 3, one never."""
    each = {"success": [True, True, True, True, False], "initially_wrong": [True, False, False, False, False]}
    crafted = pl.DataFrame({"experiment": "C&W", "net": "digits-res", "l2": [0.0, 1.0, 2.0, 3.0, 0.0], **each})
    setup, none = replace(SMOKE, nets=("digits-res",)), pl.DataFrame()
    table = hardened_report.distances(hardened_report.Rows(crafted, none, none, none), setup)
    assert table.rows == (("digits-res", "75.0 % [30.1, 95.4]", "2.50 [1.00, inf]"),)


def test_certified_is_what_is_right_and_proven():
    """Of four images one is wrong however wide its certificate, and one is proven within .1 only; by 500 draws of noise of .1
    nothing is proven beyond .22."""
    certified = pl.DataFrame(
        {
            "experiment": (one := hardened.Smoothed("digits-res", 0.1)).label,
            "image": list("abcd"),
            "prediction": [1, 2, 3, -1],
            "correct": [True, False, True, False],
            "radius": [0.2, 0.2, 0.1, 0.0],
            "nfe": [0, 0, 0, 0],
        }
    )
    none = pl.DataFrame()
    rows = hardened_report.Rows(none, none, none, certified)
    (row,) = hardened_report.certificates(rows, replace(SMOKE, smoothed=(one,), draws=500)).rows
    assert [cell.split(" [")[0] for cell in row[1:]] == ["50.0 %", "25.0 %", *["-"] * 4, "25.0 %", "0"]


def test_withstood_is_what_is_right_accepted_and_not_got_past():
    """Five images: one attacked with success by one of the ways, one refused when clean, one wrong, two that stand. Another
    detector's scores and another net's rows count for nothing."""
    images = list("abcde")
    clean = pl.DataFrame(
        {"experiment": "clean", "net": "digits-res", "image": images, "correct": [*[True] * 4, False], "status": 0}
    )
    usual = {"net": "digits-res", "detector": "one-pass-margin"}
    scored = pl.concat(
        [
            pl.DataFrame({**usual, "kind": "calibration", "image": list(map(str, range(200))), "score": [0.0] * 200}),
            pl.DataFrame({**usual, "kind": "clean", "image": images, "score": [0.0, 9.0, 0.0, 0.0, 0.0]}),
            pl.DataFrame({**usual, "detector": "confidence", "kind": "clean", "image": images, "score": [9.0] * 5}),
        ]
    )
    crafted = pl.concat(
        pl.DataFrame(
            {
                "experiment": hardened.refusal(way, allowed),
                "net": "digits-res",
                "epsilon": 0.1,
                "image": images,
                "success": [way == "small steps", False, False, False, False],
                "initially_wrong": [False] * 4 + [True],
                "status": 0,
            }
        )
        for way in hardened.attacks_past_refusal(SMOKE, 0.1)
        for allowed in hardened.ALARMS
    )
    rows = hardened_report.Rows(crafted, clean, scored, pl.DataFrame())
    setup = replace(SMOKE, refusing=(("digits-res", "one-pass-margin"),), radii=(0.1,))
    for row in hardened_report.rejection(rows, setup).rows:
        assert row[2].startswith("20.0 %") and row[-1].startswith("40.0 %"), row


def test_nothing_more_is_needed_to_harden_a_net(monkeypatch):
    """Neither is anything of it tried that asks for an optional package."""
    monkeypatch.setattr("odefend.attacks.autoattack_adapter.library", lambda name: 1 / 0)
    setup = replace(SMOKE, thorough=0)
    assert {unit.experiment for unit in hardened.in_balls(setup)} == set(hardened.tried(setup))
    assert not hardened.nearest(setup)


def test_a_smaller_study_is_smaller_in_all_its_parts():
    usual = hardened.SETUPS["digits"]
    few = _sized(usual, 20, "thorough", "standard", "certified", "refused")
    assert (few.images, few.thorough, few.standard, few.certified, few.refused) == (20, 10, 0, 20, 10)
    assert _sized(defenses.SETUPS["mnist"], 1, "nearest").nearest == 1


def test_work_grows_with_starts_and_with_the_parts_of_autoattack():
    """It tells the time that is left."""
    craft = Craft("PGD", odefend.PGD(0.1, steps=10), View("digits-res"), Slice("digits", "test", 0, 4))
    assert work(replace(craft, attack=odefend.PGD(0.1, steps=10, restarts=3))) == 3 * work(craft)
    pytest.importorskip("pyautoattack", reason="needs the extra attacks")
    whole = AutoAttack(0.1, steps=10, queries=50)
    parts = [replace(whole, attacks=(name,)) for name in ("apgd-ce", "apgd-t", "fab-t", "square")]
    assert work(replace(craft, attack=whole)) == pytest.approx(sum(work(replace(craft, attack=one)) for one in parts))
    assert work(replace(craft, attack=parts[0])) == work(craft) and work(replace(craft, attack=parts[3])) == 80


def test_other_solves_are_followed_of_a_net_that_has_some():
    setup = replace(SMOKE, nets=("digits-oon", "digits-res"))
    ways = hardened.sources(setup, "digits-oon")
    assert [one.tolerance for one in ways[:3]] == [1e-5, 1e-1, 1e-3] and ways[2].method == "rk4"
    assert ways[3].net == "digits-res" and [one.net for one in hardened.sources(setup, "digits-res")] == ["digits-oon"]


def test_the_commands(cli, small, tmp_path):
    done = cli("harden", small, "--minutes", "0", "--out", tmp_path / "a")
    assert done.returncode == 2 and "minutes: expected a time above 0" in done.stderr
    few = ("tune", "digits-res", "--defense", "bit-depth", "--images", 16, "--out", tmp_path / "b")
    done = cli(*few, "--attack", "nearest")
    assert done.returncode == 2 and "unknown attack 'nearest'" in done.stderr
    done = cli("harden", small, "--strength", "0", "--out", tmp_path / "a")
    assert done.returncode == 2 and "strength: expected" in done.stderr
    done = cli(*few, "--json", "-q", "--workers", 1)
    assert done.returncode == 0, done.stderr
    told, path = json.loads(done.stdout), tmp_path / "b" / "bit-depth.json"
    assert told == json.loads(path.read_text()) | {"file": str(path)}
    assert all(one["clean"]["n"] == 16 for one in told["tried"])
