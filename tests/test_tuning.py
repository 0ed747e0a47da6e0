"""Tuning a defense: what is chosen by whom, at what cost, and what it is worth on test images."""

import json

import polars as pl
import pytest
import torch

import odefend
from odefend.attacks import PGD, PRESETS, Expectation
from odefend.defenses import BitDepth, InputNoise, named_defense
from odefend.defenses.candidates import CANDIDATES, candidates
from odefend.engine import DefenseSpec
from odefend.errors import InvalidInput, OutputError, UnknownName
from odefend.experiments.manifest import open_manifest
from odefend.experiments.tuned import admissible, tuned
from odefend.ledger import Ledger
from odefend.metrics import Rows
from odefend.metrics.controls import equal_noise
from odefend.progress import Silent
from odefend.studies.tuning import tune, tuning

pytestmark = pytest.mark.xdist_group("tuning")

SIZE = {"epsilon": 0.15, "max_accuracy_drop": 0.05, "images": 80, "steps": 10, "followed": (2, 3), "draws": 2}
NOISY = tuning("digits-res", "input-noise", [{"sigma": 0.1}, {"sigma": 0.7}], **SIZE)
COARSE = tuning("digits-res", "bit-depth", [{"bits": 2}], **SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture(scope="module")
def noisy(folder):
    return tune(NOISY, folder, Silent(), 1)


@pytest.fixture(scope="module")
def coarse(folder):
    return tune(COARSE, folder, Silent(), 1)


def test_what_a_candidate_costs_and_recovers(noisy, coarse, res):
    """By hand: clean images, images that the attack broke, and the mean over draws."""
    some = odefend.digits("validation").sample(80, 0)
    base = res.predict(some.images).correct(some.labels).double()
    with torch.no_grad():
        drawn = [InputNoise(0.1)(res).draw(some.ids, draw).predict(some.images).correct(some.labels) for draw in (0, 1)]
        rounded = BitDepth(2)(res).predict(some.images).correct(some.labels).double()
    told, harsh = noisy.report.tables[0].numbers
    assert told["clean accuracy"]["value"] == pytest.approx(torch.stack(drawn).double().mean().item())
    assert harsh["minus the bare net"]["value"] < -0.05 and harsh["robust accuracy"]["n"] == 0, "it costs too much"
    (told,) = coarse.report.tables[0].numbers
    assert told["clean accuracy"]["value"] == pytest.approx(rounded.mean().item())
    assert told["minus the bare net"]["value"] == pytest.approx((rounded - base).mean().item())
    few = some[:40]
    made = PRESETS["fast"].attack(res, few.images, few.labels, ids=few.ids)
    assert made.success.sum() > 5
    with torch.no_grad():
        back = BitDepth(2)(res).predict(made.images).correct(few.labels)[made.success]
    assert told["recovered"]["value"] == pytest.approx(back.double().mean().item())


def test_noise_of_equal_dose_is_noise_itself_beside_noise(noisy, coarse):
    assert noisy.noise == 0.1 and coarse.noise is not None and 0.003 < coarse.noise < 0.3
    validation = noisy.report.rows.where({"measure": "validation"})
    assert equal_noise(validation, "net", "net", "noises") == [0.0]
    assert equal_noise(validation, "tuned", "net", "noises") == [], "it is not among these rows"


def test_the_attacks_follow_the_defense_and_the_bare_net(noisy, folder, res):
    """By hand: along two draws that no judge makes, and along the bare net's gradient."""
    some, ledger = odefend.digits("validation").sample(80, 0)[:20], Ledger(folder / "ledger")
    hidden = InputNoise(0.1, seed=1)(res)
    known = Expectation([hidden.draw(some.ids, index) for index in range(2)])
    for name, loss, source, seed in (
        ("PGD, few draws", "cross-entropy", None, 1),
        ("PGD, bare gradient", "margin", res, 5),
    ):
        attack = PGD(0.15, steps=10, step_size=0.075, loss=loss, early_stop=False)
        made = attack(known, some.images, some.labels, ids=some.ids, seed=seed, source=source)
        (key,) = noisy.report.rows.crafted.filter(model="admissible", attack=f"{name}, validation")["key"].unique()
        assert torch.equal(ledger.read_images(key), made.images)


def test_the_tuned_number_is_not_above_what_a_final_attack_leaves(coarse, res):
    """Long steps on the margin from many starts break more images behind four grey levels than a few short ones from one start,
    whose number would be too kind."""
    some = odefend.digits("validation").sample(80, 0)[:20]

    def left(attack):
        made = attack(BitDepth(2)(res), some.images, some.labels, ids=some.ids)
        return (~made.success & ~made.initially_wrong).double().mean().item()

    final = left(PGD(0.15, steps=20, step_size=0.15, loss="margin", restarts=8))
    (told,) = coarse.report.tables[0].numbers
    assert left(PGD(0.15, steps=5)) > final + 1 / 20 and told["robust accuracy"]["value"] <= final + 1 / 20


def test_the_choice_meets_the_same_attacks_as_its_controls_on_test_images(noisy):
    assert noisy.defense == DefenseSpec("input-noise", '{"sigma":0.1}')
    chosen, harsh = noisy.report.tables[0].numbers
    assert chosen["robust accuracy, test"]["n"] == 20 and harsh["robust accuracy, test"]["n"] == 0
    net, ours, noise = noisy.report.tables[1].numbers
    assert ours["robust accuracy"] == chosen["robust accuracy, test"] == noise["robust accuracy"]
    met = noisy.report.rows.crafted.filter(pl.col("data") == "test", pl.col("role") == "adaptive")
    counts = met.group_by("model").agg(pl.col("attack").n_unique(), pl.col("image").n_unique())
    assert counts.height == 3 and counts["attack"].to_list() == [6] * 3 and counts["image"].to_list() == [20] * 3
    assert net["clean accuracy"]["n"] == 80 and "minus the bare net" not in net


def test_nothing_is_done_twice(noisy, folder):
    files = sorted(folder.rglob("*.parquet"))
    before = [path.stat().st_mtime_ns for path in files]
    again = tune(NOISY, folder, Silent(), 1)
    assert (again.defense, again.noise) == (noisy.defense, noisy.noise)
    assert again.report.tables == noisy.report.tables
    assert [path.stat().st_mtime_ns for path in sorted(folder.rglob("*.parquet"))] == before


IMAGES = [f"i{number}" for number in range(10)]


def toy(candidates_of, role="adaptive"):
    """Rows of ten images: for each candidate (by its sigma) how many are right when clean, and how many of these attacks break."""
    judged, crafted = [], []

    def add(model, defense, image, correct, **more):
        usual = {
            "kind": "clean",
            "crafted": None,
            "epsilon": None,
            "initially_wrong": None,
            "role": None,
            "attack": None,
        }
        row = {
            "model": model,
            "defense": defense,
            "image": image,
            "correct": correct,
            "draw": 0,
            "status": 0,
            "scale": 1.0,
            "true_margin": 0.0,
        }
        judged.append(usual | row | more)

    for image in IMAGES:
        add("net", None, image, correct=True)
    for sigma, (right, broken) in candidates_of.items():
        text = DefenseSpec("input-noise", json.dumps({"sigma": sigma})).text
        for number, image in enumerate(IMAGES):
            add("candidates", text, image, number < right)
            made = {"attack": "PGD", "epsilon": 0.1, "initially_wrong": number >= right, "role": role}
            judge = {"kind": "adversarial", "crafted": f"k{sigma}"}
            add("admissible", text, image, broken <= number < right, **judge, **made)
            crafted.append(made | {"key": f"k{sigma}", "image": image, "defense": text, "success": number < broken})
    frames = [pl.DataFrame(rows, infer_schema_length=None) for rows in (crafted, judged)]
    empty = pl.DataFrame(schema={"image": pl.String})
    return Rows(frames[0].with_columns(status=0), frames[1], empty, empty, empty)


def sigmas(found):
    return [json.loads(one.settings)["sigma"] for one in found]


BUDGET = ("candidates", "net", 0.2)


def test_the_most_robust_that_costs_no_more_than_allowed_is_chosen():
    rows = toy({0.1: (10, 6), 0.2: (9, 3), 0.3: (7, 0)})
    assert sigmas(admissible(rows, *BUDGET)) == [0.1, 0.2]
    assert sigmas(tuned(rows, *BUDGET)) == [0.2]
    assert sigmas(tuned(toy({0.1: (10, 6), 0.2: (8, 4)}), *BUDGET)) == [0.1], "of equals, what costs least"
    assert tuned(toy({0.3: (7, 0)}), *BUDGET) == []


@pytest.mark.parametrize("role", ["oblivious", "transfer", "black-box"])
def test_who_does_not_know_the_defense_does_not_choose(role):
    """It would choose what is least like what it knows."""
    with pytest.raises(InvalidInput, match=f"expected attacks on .* of role white-box or adaptive.*{role}"):
        tuned(toy({0.1: (10, 2), 0.2: (9, 1)}, role), *BUDGET)


def test_other_weights_under_the_same_name_are_another_tuning(tmp_path, monkeypatch):
    """Rows of the one are not counted with those of the other."""
    for seed, refused in ((0, False), (0, False), (1, True)):
        torch.manual_seed(seed)
        net = odefend.MODELS["oon-matched"](in_channels=1, width=4).eval()
        monkeypatch.setattr("odefend.experiments.manifest.opened_net", lambda *_, net=net: net)
        if refused:
            with pytest.raises(OutputError, match="weights"):
                open_manifest(COARSE, tmp_path)
        else:
            open_manifest(COARSE, tmp_path)


def test_wrong_use():
    with pytest.raises(InvalidInput, match="max_accuracy_drop: expected a share"):
        tuning("digits-res", "bit-depth", max_accuracy_drop=1.0)
    with pytest.raises(UnknownName, match="Did you mean 'bit-depth'"):
        tuning("digits-res", "bit-dept")


@pytest.mark.parametrize("name", CANDIDATES)
def test_what_is_tried_by_itself_can_be_opened(name, oon, test_digits):
    for settings in candidates(name, oon):
        with torch.no_grad():
            assert named_defense(name, settings)(oon).predict(test_digits[:4].images).answered.all()


def test_end_times_are_tried_around_the_nets_own(oon):
    usual, longer = ([one["t1"] for one in candidates("end-time", net)] for net in (oon, oon.at(t1=20.0)))
    assert longer == pytest.approx([20 * end for end in usual]) and min(usual) < 1 < max(usual)


def test_the_command(cli, tmp_path):
    few = ("tune", "digits-res", "--defense", "bit-depth", "--images", 8, "--out", tmp_path)
    done = cli(*few, "--attack", "nearest")
    assert done.returncode == 2 and "unknown attack 'nearest'" in done.stderr
    done = cli(*few, "--json", "-q", "--workers", 1)
    assert done.returncode == 0, done.stderr
    told, path = json.loads(done.stdout), tmp_path / "bit-depth.json"
    assert told == json.loads(path.read_text()) | {"file": str(path), "report": str(tmp_path / "tune-bit-depth.html")}
    assert [row["settings"] for row in told["tables"][0]["rows"]] == ["bits 1", "bits 2", "bits 3", "bits 4"]
    assert told["chosen"]["name"] == "bit-depth"
