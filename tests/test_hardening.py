"""Hardening: a plan that fits the minutes, goes on as it was begun, and tells before from after; and the study of nets that were
trained to be robust."""

import json
import shutil
from dataclasses import replace

import polars as pl
import pytest
import torch

import odefend
from odefend.attacks import AutoAttack
from odefend.engine import Craft, ModelSpec, Slice, opened_net
from odefend.errors import CheckpointError, InvalidInput, OutputError, UnknownName
from odefend.experiments import Expansion, run
from odefend.metrics import METRICS, Rows
from odefend.progress import Silent
from odefend.report.filled import table
from odefend.studies import STUDIES
from odefend.studies.hardened import hardened
from odefend.studies.hardening import before_and_after, harden, plan
from odefend.studies.robustness import ALARMS, Effort
from odefend.training import Trial, read_recipe, train

SHORT = Effort(steps=3, restarts=1, auto_steps=2, queries=5, draws=40, calibration=100)
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


@pytest.mark.parametrize("method", ["adversarial", "smoothing"])
def test_before_and_after(method, small, tmp_path, monkeypatch):
    """The table is about both nets, and rows say the same as the nets do."""
    monkeypatch.setattr("odefend.studies.hardening.try_out", second_long)
    monkeypatch.setattr("odefend.studies.hardening.TRAINING", 0.1)
    found = harden(small, method, 0.2, 1.0, tmp_path, Silent(), images=20, workers=1, effort=SHORT)
    (before, after), columns = found.table.rows, found.table.columns
    assert before[0] == "digits-res" and after[0] == f"digits-res-{method}"
    some = odefend.digits("test").sample(20, 0)
    epsilon = 0.2 if method == "adversarial" else 0.05
    for row, name in ((before, small), (after, str(found.weights))):
        net, other = odefend.load(name), odefend.load(small if name != small else found.weights)
        right = net.predict(some.images).correct(some.labels).sum().item()
        assert row[1].startswith(f"{100 * right / 20:.1f} %") and row[-1] == "-"
        broken = torch.zeros(20, dtype=torch.bool)
        for attack, source in (
            (odefend.PGD(epsilon, steps=3), None),
            (odefend.PGD(epsilon, steps=3, loss="margin"), None),
            (odefend.PGD(epsilon, steps=1), other),
        ):
            made = attack(net, some.images, some.labels, ids=some.ids, source=source)
            broken |= made.success | made.initially_wrong
        at = columns.index(f"robust, L-inf {epsilon:g}")
        assert row[at].startswith(f"{100 * (~broken).double().mean().item():.1f} %")
    assert ("certified, L2 0.2" in columns) == (method == "smoothing")
    files = sorted(tmp_path.rglob("*.parquet"))
    times = [path.stat().st_mtime_ns for path in files]
    again = harden(small, method, 0.2, 1.0, tmp_path, Silent(), images=20, workers=1, effort=SHORT)
    assert again.table == found.table
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.parquet"))] == times


def test_nothing_more_is_needed_to_harden_a_net(tmp_path, monkeypatch):
    """Neither is anything of it tried that asks for an optional package."""
    monkeypatch.setattr("odefend.attacks.autoattack_adapter.library", lambda name: 1 / 0)
    recipe = read_recipe("digits-res", overrides={"adversarial": {"epsilon": 0.2}})
    experiment = before_and_after("digits-res", tmp_path / "net.safetensors", recipe, 50, SHORT)
    tried = {name: Expansion(experiment).attacks(part) for name, part in experiment.attacks.items()}
    assert {"PGD", "PGD, margin", "PGD from net"} < set(tried)
    assert all([one.budget for one in some] == [0.1, 0.2] for some in tried.values())
    assert set(experiment.measures) == {"clean"} and experiment.data["test"].count == 50


@pytest.fixture(scope="module")
def smoke():
    pytest.importorskip("pyautoattack", reason="needs the extra attacks")
    return hardened(
        16,
        nets=("digits-res-adversarial", "digits-res"),
        smoothed=(("digits-res-noise", 0.25, "input"),),
        rejecting={"digits-res-ccat": "confidence", "digits-res": "one-pass-margin"},
        effort=SHORT,
        shares=(0.5, 0.5, 0.25),
    )


@pytest.fixture(scope="module")
def rows(smoke, tmp_path_factory):
    return Rows.read(run(smoke, tmp_path_factory.mktemp("hardened"), Silent(), workers=1), "hardened")


def test_the_worst_case_is_no_better_than_any_attack(smoke, rows):
    robust = METRICS["robust accuracy"].each  # type: ignore[attr-defined]
    tried = tuple(name for name, part in smoke.attacks.items() if part.epsilon == (0.1, 0.2, 0.3))
    for net in ("digits-res-adversarial", "digits-res"):
        mine = rows.where({"model": net, "epsilon": 0.2, "measure": "clean"})
        worst = robust(mine.where({"attack": tried}))
        assert worst.height == 8
        met = set(mine.where({"attack": tried}).crafted["attack"].cast(pl.String))
        assert len(met) == 5, "no solver, so only another net's gradient is followed"
        for name in met:
            both = robust(mine.where({"attack": name})).join(worst, on="image", suffix="_worst")
            assert both.height == 8 and not (both["value_worst"] > both["value"]).any()
    made = rows.where({"model": "digits-res", "epsilon": 0.2, "attack": "PGD"})
    lost = made.crafted["success"] | made.crafted["initially_wrong"]
    assert METRICS["robust accuracy"].of(made).value == (~lost).mean()


def test_rejection_is_set_on_clean_images_and_attacked_together_with_the_net(smoke, rows):
    for name, part in smoke.detectors.items():
        held_out = rows.scored.filter(detector=name, kind="calibration")["score"]
        assert len(held_out) == 100
        known = rows.crafted.filter(past=name)
        assert known["model"].unique().to_list() == [part.model]
        assert set(known["combination"]) == {"selective", "joint"} and known["attack"].n_unique() == 2
        limits = []
        for allowed in ALARMS:
            (guard,) = {json.loads(one)["threshold"] for one in known.filter(alarms=allowed)["guard"].cast(pl.String)}
            assert (held_out > guard).sum() <= allowed * len(held_out)
            limits.append(guard)
        assert limits[0] >= limits[1]


def test_the_tables_of_the_study(smoke, rows):
    balls, distances, auto, certified, rejection = (table(part, rows, smoke) for part in smoke.tables)
    assert len(balls.rows) == 6 and len(distances.rows) == 2 and len(rejection.rows) == 4
    assert "Of 16 test images" in balls.note and "of 8 test images" in certified.note
    for net, alone, together in auto.rows:
        made = rows.crafted.filter(attack="AutoAttack", model=net)
        assert made["epsilon"].unique().to_list() == [0.3] and made.height == 4
        left = (~(made["success"] | made["initially_wrong"])).sum()
        assert alone.startswith(f"{25 * left:.1f} %") and float(together.split()[0]) <= 25 * left
    (row,) = certified.rows
    shares = [float(cell.split()[0]) for cell in row[1:7] if cell != "-"]
    assert 0 < len(shares) < 6 and shares == sorted(shares, reverse=True) and row[-1] == "-"
    # A net that may reject loses nothing in clean accuracy by it, so both columns are there to see.
    assert {"clean images rejected", "clean accuracy"} <= set(rejection.columns)


def rows_of(crafted=None, judged=None, scored=None, certified=None):
    empty = pl.DataFrame(schema={"image": pl.String})
    given = [empty if one is None else pl.DataFrame(one) for one in (crafted, judged, scored, certified)]
    return Rows(given[0], given[1], given[2], given[3], empty)


def clean(images, correct):
    """Rows of clean images that were judged."""
    rows = pl.DataFrame({"image": list(images), "correct": correct, "kind": "clean", "status": 0})
    none = {"initially_wrong": pl.Boolean, "epsilon": pl.Float64, "attack": pl.String}
    return rows.with_columns(pl.lit(None, kind).alias(name) for name, kind in none.items())


def test_all_attacks_are_united_image_by_image_whoever_met_them():
    """Four images. PGD breaks the first, the gradient of another net the second, Square, which only two met, the third: of all
    attacks one of four is left, of those two one."""
    met = {"PGD": "abcd", "PGD from another": "abcd", "Square": "cd"}
    broken = {"PGD": "a", "PGD from another": "b", "Square": "c"}
    usual = {"epsilon": 0.2, "initially_wrong": False, "status": 0}
    made = [
        usual | {"attack": name, "image": image, "success": image in broken[name]}
        for name, images in met.items()
        for image in images
    ]
    found = rows_of(made, clean("abcd", True))
    assert METRICS["robust accuracy, all images"].of(found).value == 0.25
    assert METRICS["robust accuracy"].of(found).value == 0.5
    each = [METRICS["robust accuracy"].of(found.where({"attack": name})).value for name in met]
    assert each == [0.75, 0.75, 0.5]


def test_how_far_a_net_is_broken_counts_what_was_never_broken():
    """Five images of a net: one wrong anyhow, three broken at L2 distances of 1, 2 and 3, one never."""
    each = {"success": [True, True, True, True, False], "initially_wrong": [True, False, False, False, False]}
    found = rows_of({"image": list("abcde"), "l2": [0.0, 1.0, 2.0, 3.0, 0.0], **each})
    assert METRICS["success"].of(found).percent == "75.0 % [30.1, 95.4]"
    assert METRICS["median L2"].of(found).text(2) == "2.50 [1.00, inf]"
    further = rows_of(
        {
            "image": list("abcde"),
            "l2": [0.0, 2.0, 4.0, 6.0, 1.0],
            "success": [True] * 5,
            **each | {"success": [True] * 5},
        }
    )
    assert METRICS["median L2"].over(further, found).value == 2.0, "over images that both broke"


@pytest.mark.parametrize(("where", "beyond"), [("input", "-"), ("state", "0.0 %")])
def test_certified_is_what_is_right_and_proven(where, beyond):
    """Of four images one is wrong however wide its certificate, and one is proven within .1 only; by 500 draws of noise of .1 in
    the image nothing is proven beyond .22, which for noise in the state depends on the stem."""
    proofs = {
        "image": list("abcd"),
        "prediction": [1, 2, 3, -1],
        "correct": [True, False, True, False],
        "radius": [0.2, 0.2, 0.1, 0.0],
        "defense": json.dumps({"name": "smoothing", "sigma": 0.1, "where": where}, separators=(",", ":")),
        "draws": 500,
        "alpha": 0.001,
        "sigma": 0.1,
        "nfe": 0,
    }
    found = rows_of(certified=proofs).where({"radius": 0.0})
    cells = [METRICS["certified"].of(found.where({"radius": radius})) for radius in (0.0, 0.1, 0.25)]
    assert [cell.value for cell in cells[:2]] == [0.5, 0.25] and (cells[2].n == 0) == (beyond == "-")


def test_robust_with_rejection_is_what_is_right_accepted_and_not_got_past():
    """Five images: one attacked with success by one of the attacks, one rejected when clean, one wrong, two that are left. Scores
    of another detector count for nothing."""
    images = list("abcde")
    mine = {"detector": "mine", "measure": "scores"}
    scored = pl.concat(
        [
            pl.DataFrame({**mine, "kind": "calibration", "image": list(map(str, range(200))), "score": [0.0] * 200}),
            pl.DataFrame({**mine, "kind": "clean", "image": images, "score": [0.0, 9.0, 0.0, 0.0, 0.0]}),
            pl.DataFrame({**mine, "detector": "other", "kind": "clean", "image": images, "score": [9.0] * 5}),
        ]
    )
    usual = {"epsilon": 0.1, "status": 0, "past": "mine", "alarms": 0.05}
    made = [
        usual
        | {"attack": name, "image": image, "success": (name, image) == ("small", "a"), "initially_wrong": image == "e"}
        for name in ("usual", "small")
        for image in images
    ]
    found = rows_of(made, clean(images, [*[True] * 4, False]), scored)
    for alarms in ALARMS:
        part = found.where({"detector": "mine", "alarms": 0.05}).where({"detector": "mine"})
        part = replace(part, allowed=alarms)
        assert METRICS["robust accuracy with rejection"].of(part).value == 0.4
        assert METRICS["false alarms"].of(part).value == 0.2 and METRICS["accuracy"].of(part).value == 0.8


def test_a_smaller_study_is_smaller_in_all_its_parts():
    for name, counts in (("hardened", {10, 20, None}), ("hardened-mnist", {4, 10, None})):
        few = STUDIES[name](20)
        found = {part.count for part in few.attacks.values()} | {few.measures["certified"].count}
        assert found == counts and few.data["test"].count == 20


def test_work_grows_with_starts_and_with_the_parts_of_autoattack():
    """It tells the time that is left."""
    craft = Craft(odefend.PGD(0.1, steps=10), ModelSpec("digits-res"), Slice("digits", "test", 0, 4))
    assert replace(craft, attack=odefend.PGD(0.1, steps=10, restarts=3)).cost == 3 * craft.cost
    pytest.importorskip("pyautoattack", reason="needs the extra attacks")
    whole = AutoAttack(0.1, steps=10, queries=50)
    parts = [replace(whole, attacks=(name,)) for name in ("apgd-ce", "apgd-t", "fab-t", "square")]
    costs = [replace(craft, attack=one).cost for one in (whole, *parts)]
    assert costs[0] == pytest.approx(sum(costs[1:])) and costs[1] == craft.cost and costs[4] == 80


def test_other_solves_are_followed_of_a_net_that_has_some():
    pytest.importorskip("pyautoattack", reason="needs the extra attacks")
    expansion = Expansion(hardened(4, nets=("digits-oon", "digits-res"), rejecting={}, effort=SHORT))
    crafts = [task.unit for name in expansion.experiment.attacks for task in expansion.crafts(name)]
    followed = {
        net: [one.source for one in crafts if isinstance(one, Craft) and one.model.net == net and one.source]
        for net in ("digits-oon", "digits-res")
    }
    assert {one.net for one in followed["digits-res"]} == {"digits-oon"}
    ours = {(one.net, one.tolerance, one.method) for one in followed["digits-oon"]}
    trained = next(one.model for one in crafts if isinstance(one, Craft)).tolerance
    assert ours == {
        ("digits-oon", 1e-5, None),
        ("digits-oon", 1e-1, None),
        ("digits-oon", trained, "rk4"),
        ("digits-res", None, None),
    }


def test_the_command(cli, small, tmp_path):
    done = cli("harden", small, "--minutes", "0", "--out", tmp_path / "a")
    assert done.returncode == 2 and "minutes: expected a time above 0" in done.stderr
    done = cli("harden", small, "--strength", "0", "--out", tmp_path / "a")
    assert done.returncode == 2 and "strength: expected" in done.stderr
