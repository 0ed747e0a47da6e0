"""Tuning a defense: what is chosen, at what cost, beside what noise, and what an attacker who knows makes of it."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

import odefend
from odefend.attacks import PGD, CarliniWagner, Expectation
from odefend.defenses import BitDepth, InputNoise
from odefend.errors import InvalidInput, UnknownName
from odefend.evaluation import Defended, Ledger, Slice, View, tuning
from odefend.evaluation.adaptive import Adaptive
from odefend.evaluation.tuning import CANDIDATES, Tried, Tuning, candidates, chosen, record, tune
from odefend.intervals import rate
from odefend.progress import Silent
from odefend.report.tuning import evidence, operating_points

pytestmark = pytest.mark.xdist_group("tuning")

RES = View("digits-res")
SEARCH = CarliniWagner(steps=10, binary_search_steps=2, learning_rate=0.1, initial_constant=10.0)
NOISY, COARSE, HARSH = (
    Defended("input-noise", '{"sigma":0.1}'),
    Defended("bit-depth", '{"bits":2}'),
    Defended("input-noise", '{"sigma":0.7}'),
)
SUITE = Adaptive(0.15, steps=10, few=2, many=3)
SMALL = Tuning(RES, "digits", (NOISY, COARSE, HARSH), SEARCH, SUITE, 0.05, 60, 20, 24, draws=2, shard=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture(scope="module")
def found(folder):
    return tune(SMALL, folder, Silent(), 1)


def test_what_a_candidate_costs_and_wins_back(found, res):
    """By hand: clean images, images that the attack broke, and the mean over draws."""
    some = odefend.digits("validation")[:60]
    noisy, coarse, harsh = found[1]
    base = res.predict(some.images).correct(some.labels).double()
    with torch.no_grad():
        drawn = [InputNoise(0.1)(res).draw(some.ids, draw).predict(some.images).correct(some.labels) for draw in (0, 1)]
        rounded = BitDepth(2)(res).predict(some.images).correct(some.labels)
    assert noisy.clean.value == pytest.approx(torch.stack(drawn).double().mean().item())
    assert coarse.clean.value == pytest.approx(rounded.double().mean().item())
    assert coarse.lost.value == pytest.approx((base - rounded.double()).mean().item())
    few = some[:20]
    made = SEARCH(res, few.images, few.labels, ids=few.ids)
    assert made.success.sum() > 5
    with torch.no_grad():
        back = BitDepth(2)(res).predict(made.images).correct(few.labels)[made.success]
    assert coarse.won.value == pytest.approx(back.double().mean().item()) and coarse.won.n == int(made.success.sum())
    assert not harsh.admissible and harsh.lost.value > 0.05 and harsh.robust is None
    # Noise is set beside noise of its own size, and a defense beside some of its dose.
    assert noisy.sigma == pytest.approx(0.1) and noisy.noise_won == pytest.approx(noisy.won.value)
    assert 0.003 < coarse.sigma < 0.3


def test_the_response_follows_the_defense_and_the_bare_net(found, folder, res):
    """By hand: along two draws that no judge makes, and along the bare net's gradient."""
    noisy, coarse, _ = found[1]
    assert all(one.robust is not None and one.robust.n == 24 for one in (noisy, coarse))
    some, ledger = odefend.digits("validation")[:24], Ledger(folder)
    hidden = InputNoise(0.1, seed=1)(res)
    rows = ledger.read("crafted", SMALL.name).filter(pl.col("defense") == NOISY.text)
    for name, draws, source in (("adaptive", 2, None), ("adaptive, bare", 2, res)):
        (unit,) = [
            one for one in SUITE.against(RES, NOISY, Slice("digits", "validation", 0, 24)) if one.experiment == name
        ]
        known = Expectation([hidden.draw(some.ids, index) for index in range(draws)])
        made = unit.attack(known, some.images, some.labels, ids=some.ids, seed=unit.seed, source=source)
        (key,) = rows.filter(pl.col("experiment") == name)["key"].unique()
        assert torch.equal(ledger.read_images(key), made.images)


def test_the_tuned_number_is_not_above_what_a_final_attack_leaves(found, res):
    """Long steps on the margin from many starts break more images behind four grey levels than a few short ones from one start,
    whose number would be too kind."""
    some, coarse = odefend.digits("validation")[:24], found[1][1]

    def left(attack):
        made = attack(BitDepth(2)(res), some.images, some.labels, ids=some.ids)
        return (~made.success & ~made.initially_wrong).double().mean().item()

    final = left(PGD(0.15, steps=20, step_size=0.15, loss="margin", restarts=8))
    assert left(PGD(0.15, steps=5)) > final + 1 / 24 and coarse.robust is not None
    assert coarse.robust.value <= final + 1 / 24


def test_the_choice(found, folder):
    point, tried = found
    assert point == max(tried[:2], key=lambda one: (one.robust.value, one.clean.value)).defense
    files = sorted(folder.rglob("*.parquet"))
    before = [path.stat().st_mtime_ns for path in files]
    assert tune(SMALL, folder, Silent(), 1) == found
    assert [path.stat().st_mtime_ns for path in sorted(folder.rglob("*.parquet"))] == before


def tried(defense, robust, lost=0.0, admissible=True, won=50):
    """A candidate's results, as shares of a hundred images."""
    shares = rate(90, 100), rate(int(100 * lost), 100), rate(won, 100), 0.1, 0.5, admissible
    return Tried(defense, *shares, rate(robust, 100) if admissible else None)


def test_the_most_robust_that_costs_no_more_than_allowed_is_chosen():
    """Whatever it wins back from an attack that knows nothing of it."""
    assert (
        chosen([tried(NOISY, 40, won=95), tried(COARSE, 60, won=10), tried(HARSH, 90, 0.3, admissible=False)]) == COARSE
    )
    assert chosen([tried(HARSH, 90, 0.3, admissible=False)]) is None
    less = replace(tried(NOISY, 60), clean=rate(80, 100))
    assert chosen([less, tried(COARSE, 60)]) == COARSE, "of equals, what costs least"


def test_other_weights_under_the_same_name_are_another_tuning(tmp_path, monkeypatch):
    """Rows of the one are not counted with those of the other, in whatever folder."""
    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = odefend.MODELS["oon-matched"](in_channels=1, width=4).eval()
        monkeypatch.setattr("odefend.evaluation.views.opened_net", lambda name, net=net: net)
        names.append(SMALL.name)
    assert len(set(names)) == 2


def test_the_record_is_json_and_its_table_tells_the_choice(found):
    told = json.loads(json.dumps(record(SMALL, *found)))
    assert told["net"] == "digits-res" and len(told["tried"]) == 3 and told["loss"] == 0.05
    table = evidence(told)
    assert [row[0].startswith("-> ") for row in table.rows].count(True) == 1 and "Chosen: " in table.note
    assert table.rows[2][-1] == "not measured" and table.rows[1][-1].endswith("]") and "noise" in table.title
    none = evidence(told | {"chosen": None})
    assert "None is chosen" in none.note and not any(row[0].startswith("->") for row in none.rows)


def test_operating_points_of_several_defenses(found):
    """What is chosen; where nothing is, what costs least, and it says so."""
    told = record(SMALL, *found)
    table = operating_points([told, told | {"chosen": None}])
    (name, settings, count, *_), (_, least, *_) = table.rows
    assert name == told["chosen"]["name"] and "too much" not in settings and count == "3" and "too much" in least
    assert "most often under adaptive attacks" in table.note
    before = {key: value for key, value in told.items() if key != "adaptive"}
    assert "to win most back from an attack that knows nothing" in operating_points([before]).note


def test_wrong_use():
    with pytest.raises(InvalidInput, match="loss: expected a share"):
        replace(SMALL, loss=1.0)
    with pytest.raises(UnknownName, match="Did you mean 'bit-depth'"):
        candidates("bit-dept", RES)


@pytest.mark.parametrize("name", CANDIDATES)
def test_what_is_tried_by_itself_can_be_opened(name, oon, test_digits):
    for one in candidates(name, View("digits-oon", 1e-3)):
        with torch.no_grad():
            assert one.open()(oon).predict(test_digits[:4].images).answered.all()


def test_end_times_are_tried_around_the_nets_own(oon, monkeypatch):
    usual = candidates("end-time", View("digits-oon", 1e-3))
    monkeypatch.setattr("odefend.evaluation.views.opened_net", lambda name: oon.at(t1=20.0))
    ends = [
        [json.loads(one.settings)["t1"] for one in some] for some in (usual, candidates("end-time", View("long", 1e-3)))
    ]
    assert ends[1] == pytest.approx([20 * end for end in ends[0]]) and min(ends[0]) < 1 < max(ends[0])


def test_noises_are_those_of_the_grid():
    assert [one.open() for one in SMALL.noises] == [InputNoise(sigma) for sigma in tuning.NOISE]
    assert np.all(np.diff(tuning.NOISE) > 0)
