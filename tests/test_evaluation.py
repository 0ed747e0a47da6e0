"""The ledger, the units, the controls and the doubts: rows in, rows out, nothing lost."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import norm

import odefend
from odefend import dose, intervals
from odefend.attacks import FGSM, PGD, CarliniWagner
from odefend.defenses import InputNoise, LogUniform, RandomTolerance
from odefend.detectors import ToleranceVote
from odefend.dose import matched_sigma
from odefend.errors import OutputError
from odefend.evaluation import (
    Condition,
    Craft,
    Judge,
    Ledger,
    Runner,
    Slice,
    View,
    controls,
    detection,
    doubts,
    read_evaluation,
)
from odefend.evaluation.plan import Plan

ODE, RES = View("digits-oon", 1e-3), View("digits-res")
SOME = Slice("digits", "test", 0, 20)
CRAFT = Craft("try", PGD(0.15, steps=3), ODE, SOME)
CONDITIONS = (
    Condition(1e-3),
    Condition(1.0, scale=1.1),
    Condition(1e-3, sigma=0.1, draw=2),
    Condition(1e-3, random=LogUniform(1e-4, 1.0), draw=1),
)
JUDGE = Judge("try", ODE, SOME, CONDITIONS, CRAFT)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    ledger = Ledger(tmp_path_factory.mktemp("ledger"))
    CRAFT.run(ledger)
    JUDGE.run(ledger)
    return ledger


def test_crafted_rows_say_what_the_attack_found(ledger, oon, test_digits):
    rows, some = ledger.read("crafted"), test_digits[:20]
    found = CRAFT.attack(oon, some.images, some.labels, ids=some.ids)
    assert rows["image"].to_list() == list(some.ids)
    assert rows["success"].to_list() == found.success.tolist() and found.success.any()
    assert torch.equal(ledger.read_images(CRAFT.key), found.images)
    assert rows["distance"].to_numpy() == pytest.approx(found.distance.numpy())
    assert rows["l2"].to_numpy() == pytest.approx(torch.sqrt(rows["mse"].to_torch() * 64).numpy(), rel=1e-5)
    row = rows.row(0, named=True)
    assert (row["attack"], row["norm"], row["epsilon"], row["rtol"], row["source_rtol"]) == (
        "PGD",
        "linf",
        0.15,
        1e-3,
        1e-3,
    )
    assert (row["gradient"], row["end"], row["coupling"], row["precision"]) == (
        "unrolled",
        "interpolate",
        "sample",
        "float32",
    )
    assert len(row["history"]) == 4


@pytest.mark.parametrize(
    ("source", "settings", "told"),
    [
        (
            View("digits-oon", 1e-3, method="rk4", step=0.25),
            {"method": "rk4", "step": 0.25},
            "unrolled, rk4 in steps of 0.25",
        ),
        (
            View("digits-oon", 1e-3, "adjoint", adjoint_tolerance=1e-5),
            {"gradient": "adjoint", "adjoint_tolerance": 1e-5},
            "adjoint at 1e-05",
        ),
    ],
)
def test_a_source_is_solved_and_differentiated_as_asked(source, settings, told, tmp_path, oon, test_digits):
    unit, ledger, some = (
        replace(CRAFT, source=source, images=Slice("digits", "test", 0, 4)),
        Ledger(tmp_path),
        test_digits[:4],
    )
    unit.run(ledger)
    found = unit.attack(oon, some.images, some.labels, ids=some.ids, source=oon.at(1e-3, **settings))
    assert torch.equal(ledger.read_images(unit.key), found.images)
    rows = ledger.read("crafted")
    assert rows["source_gradient"].unique().to_list() == [told] and rows["gradient"][0] == "unrolled"
    assert unit.key != replace(unit, source=None).key


def test_judged_rows_are_what_the_net_says(ledger, oon, test_digits):
    rows, some = ledger.read("judged"), test_digits[:20]
    adversarial = ledger.read_images(CRAFT.key)
    expected = {
        0: oon.predict(adversarial),
        1: oon.at(1.0).predict((some.images + 1.1 * (adversarial - some.images)).clamp(0, 1)),
        2: oon.predict(InputNoise(0.1).add(adversarial, some.ids, 2)),
        3: RandomTolerance(LogUniform(1e-4, 1.0))(oon).draw(some.ids, 1).predict(adversarial),
    }
    for number, prediction in expected.items():
        part = rows.slice(20 * number, 20)
        assert part["image"].to_list() == list(some.ids)
        assert part["prediction"].to_list() == prediction.labels.tolist()
        assert part["nfe"].to_list() == prediction.nfe.tolist()
        assert part["correct"].to_list() == prediction.correct(some.labels).tolist()
        assert part["margin"].to_numpy() == pytest.approx(prediction.margin.detach().numpy(), abs=1e-4)
        assert part["attack_success"].to_list() == ledger.read("crafted")["success"].to_list()
    assert rows["defense"].unique(maintain_order=True).to_list() == ["tolerance", "noise", "random tolerance"]


def test_a_net_without_solver_has_no_tolerance_in_its_rows(tmp_path):
    ledger = Ledger(tmp_path)
    Judge("try", RES, SOME, (Condition(),)).run(ledger)
    rows = ledger.read("judged")
    assert rows["rtol"].null_count() == rows["gradient"].null_count() == 20 and rows["nfe"].sum() == 0


def test_keys_change_with_everything_that_changes_rows():
    variants = [
        replace(CRAFT, attack=PGD(0.15, steps=4)),
        replace(CRAFT, view=View("digits-oon", 1e-2)),
        replace(CRAFT, seed=1),
        replace(CRAFT, images=Slice("digits", "test", 1, 21)),
        replace(CRAFT, source=RES),
        replace(CRAFT, view=RES),
        replace(CRAFT, view=View("digits-oon", 1e-3, "exact")),
    ]
    assert len({CRAFT.key, *(unit.key for unit in variants)}) == len(variants) + 1
    others = [
        replace(JUDGE, crafted=variants[0]),
        replace(JUDGE, crafted=None),
        replace(JUDGE, conditions=CONDITIONS[:2]),
        replace(JUDGE, seed=1),
    ]
    assert len({JUDGE.key, *(unit.key for unit in others)}) == len(others) + 1
    assert replace(CRAFT).key == CRAFT.key
    assert replace(CRAFT, experiment="other", trial="mine").key == CRAFT.key, "rows do not depend on what they are for"


def test_a_sample_is_drawn_by_its_seed_wherever_images_are_asked_for():
    """By a slice, by shards of it, and by an evaluation file; without a seed they are the first."""
    drawn = odefend.digits("test").sample(50, seed=1)
    assert Slice("digits", "test", 20, 50, sample=1).open().digest == drawn[20:].digest
    asked = 'name="a"\nnet="digits-res"\ndata="digits"\nimages=50\nshard=20\n[[trials]]\nname="C&W"\nattack="fast"\n'
    first = tuple(odefend.digits("test").ids[:50])
    for text, ids in ((asked, first), (f"sample = 1\n{asked}", drawn.ids)):
        parts = Plan(read_evaluation(text)).slices(50)
        assert [len(part.open()) for part in parts] == [20, 20, 10]
        assert tuple(name for part in parts for name in part.open().ids) == ids


def test_rows_are_labelled_with_what_they_are_for(tmp_path):
    """The same shard for two evaluations: done once, and found by either."""
    ledger, unit = Ledger(tmp_path), FGSM_UNIT
    with Runner(tmp_path, 1) as runner:
        runner.run([(unit, 1.0)], lambda _: None, "first")
    before = [path.stat().st_mtime_ns for path in (tmp_path / "crafted").iterdir()]
    with Runner(tmp_path, 1) as runner:
        runner.run([(replace(unit, experiment="other", trial="mine"), 1.0)], lambda _: None, "second")
    assert before == [path.stat().st_mtime_ns for path in (tmp_path / "crafted").iterdir()]
    first, second = (ledger.read("crafted", name) for name in ("first", "second"))
    assert set(first["experiment"]) == {"try"} and set(second["experiment"]) == {"other"}
    assert set(second["trial"]) == {"mine"} and first["trial"].null_count() == 20
    assert ledger.read("crafted").height == 40 and not ledger.read("crafted", "third").height


def test_two_runners_do_not_share_a_folder(tmp_path):
    with Runner(tmp_path, 1), pytest.raises(OutputError, match="another run is writing"), Runner(tmp_path, 1):
        pass
    with Runner(tmp_path, 1):
        pass


def test_shards_and_order_do_not_change_rows(tmp_path):
    whole, parts = Ledger(tmp_path / "whole"), Ledger(tmp_path / "parts")
    CRAFT.run(whole)
    for start in (10, 0):
        replace(CRAFT, images=Slice("digits", "test", start, start + 10)).run(parts)
    drop = ["key", "position", "batch", "data_digest"]
    assert whole.read("crafted").drop(drop).sort("image").equals(parts.read("crafted").drop(drop).sort("image"))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_runner_does_what_is_missing_and_no_more(workers, tmp_path, ledger):
    heard = []
    with Runner(tmp_path, workers) as runner:
        runner.run([(JUDGE, 1.0), (CRAFT, 2.0)], heard.append)
    done = runner.ledger
    assert heard[-1] == pytest.approx(3.0) and heard == sorted(heard)
    for table in ("crafted", "judged"):
        assert done.read(table).drop("experiment", "trial").equals(ledger.read(table).drop("experiment", "trial"))
        assert set(done.read(table)["experiment"]) == {"try"}
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    with Runner(tmp_path, 1) as runner:
        runner.run([(JUDGE, 1.0), (CRAFT, 2.0)], heard.append)
    assert heard[-1] == 3.0 and times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


def test_an_error_in_a_worker_reaches_the_user(tmp_path):
    wrong = Craft("try", PGD(0.1), View("digits-oom"), SOME)
    with pytest.raises(Exception, match="Did you mean 'digits-oon'"), Runner(tmp_path, 1) as runner:
        runner.run([(wrong, 1.0)], print)


def test_damaged_and_foreign_shards_are_named(tmp_path):
    ledger = Ledger(tmp_path)
    FGSM_UNIT.run(ledger)
    path = tmp_path / "crafted" / f"{FGSM_UNIT.key}.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(OutputError, match=f"{FGSM_UNIT.key}.*damaged"):
        ledger.read("crafted")
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(OutputError, match="another version"):
        ledger.read("crafted")
    with pytest.raises(OutputError, match="missing or damaged"):
        ledger.read_images("0" * 20)
    with pytest.raises(ValueError, match="no such columns"):
        ledger.write("crafted", "x", {"colour": ["red"]})


FGSM_UNIT = Craft("try", FGSM(0.1), RES, SOME)


def test_doses_and_matched_noise():
    """The median change decides, whatever one of five images does."""
    images = [f"i{i}" for i in range(5)]

    def rows(defense, rtol, sigma, margins, draw=0):
        columns = {"image": images, "defense": defense, "rtol": rtol, "sigma": sigma, "true_margin": margins}
        return pl.DataFrame(columns | {"draw": draw})

    judged = pl.concat(
        [
            rows("tolerance", 1e-3, 0.0, [1.0, 2.0, 3.0, 4.0, 0.0]),
            rows("tolerance", 1.0, 0.0, [1.3, 1.7, 3.3, 3.7, 99.0]),
            rows("tolerance", 9.0, 0.0, [1.0, 2.0, 3.0, 4.1, 99.0]),
            *(rows("noise", 1e-3, 0.01, [1.1, 1.9, 3.1, 3.9, 0.0], draw) for draw in range(2)),
            *(rows("noise", 1e-3, 0.1, [2.0, 1.0, 4.0, 3.0, 99.0], draw) for draw in range(2)),
        ]
    )
    found = controls.doses(judged, 1e-3)
    assert found.sigma(1.0) == pytest.approx(matched_sigma(0.3, {0.01: 0.1, 0.1: 1.0})) and found.sigma(9.0) == 0
    assert found.sigma(1.0, 9.0) == pytest.approx(found.sigma(1.0)), (
        "the median of 0, 0, 0, 0.1, 0.3, 0.3, 0.3, 0.3, 99 and 99"
    )
    for wanted, expected in ((1.0, 0.1), (10**-0.5, 10**-1.5), (0.05, 0.005), (9.0, 0.1)):
        assert matched_sigma(wanted, {0.01: 0.1, 0.1: 1.0}) == pytest.approx(expected)


def simulated(generator, images=25, change=0.1):
    """A change and noise whose effects are known: both move margins in proportion to the same scales and bring back a share of the
    attacked images that depends on the dose alone. (doses, recovered under the change, recovered under noise)"""

    def back(level, draws):
        return generator.binomial(draws, 1 - np.exp(-10 * level), 100) / draws

    scales, sigmas = np.exp(generator.normal(size=images)), (0.01, 0.03, 0.06, 0.1, 0.2, 0.4)
    noise = {sigma: np.abs(scales[:, None] * sigma * generator.normal(size=(images, 2))) for sigma in sigmas}
    found = dose.Doses({1.0: np.abs(scales * change * generator.normal(size=images))}, noise)
    return found, back(change, 1), {sigma: back(sigma, 5) for sigma in sigmas}


def test_the_comparison_with_noise_knows_that_its_dose_is_an_estimate(monkeypatch):
    """No better than noise of the same dose: the interval of the difference holds 0 about as often as it says, where one that takes
    the estimated dose for known would not."""
    monkeypatch.setattr(dose, "RESAMPLES", 200)
    generator, held, naive = np.random.default_rng(0), 0, 0
    for _ in range(60):
        found, change, noise = simulated(generator)
        beside = dose.beside(found, 1.0, change, noise)
        held += beside.difference.low <= 0 <= beside.difference.high
        assert beside.difference.low <= beside.difference.value <= beside.difference.high
        monkeypatch.setattr(dose.Doses, "resampled", lambda doses, which: np.full(200, doses.sigma(which)))
        known = dose.beside(found, 1.0, change, noise).difference
        naive += known.low <= 0 <= known.high
        monkeypatch.undo()
        monkeypatch.setattr(dose, "RESAMPLES", 200)
    assert held >= 54 > naive


def test_noise_that_may_not_reach_a_dose_is_weak():
    generator = np.random.default_rng(0)
    assert not dose.beside(*doses_of(simulated(generator))).weak
    assert dose.beside(*doses_of(simulated(generator, change=5.0))).weak, "beyond what was tried on clean images"
    found, change, noise = simulated(generator)
    assert dose.beside(found, 1.0, change, {0.01: noise[0.01]}).weak, "beyond what was tried on attacked ones"
    same = dose.beside(found, 1.0, np.ones(100), {0.01: np.ones(100), 0.4: np.ones(100)})
    assert same.difference.low < 0 == same.difference.value < same.difference.high, "equal on these is not equal on all"


def doses_of(parts):
    found, change, noise = parts
    return found, 1.0, change, noise


def test_s50():
    assert controls.half_recovery({1.0: 0.4, 1.1: 0.3, 1.2: 0.1}) == pytest.approx(1.15)
    assert controls.half_recovery({1.0: 0.4, 1.1: 0.3}) == math.inf
    assert controls.half_recovery({0.9: 1.0, 1.0: 0.0, 1.1: 0.0}) == 1.0


def crafted(success, wrong=None, history=None, calls=10, zero=0):
    n = len(success)
    return pl.DataFrame(
        {
            "image": [f"i{i}" for i in range(n)],
            "success": success,
            "initially_wrong": wrong or [False] * n,
            "history": history or [[math.inf, 1.0]] * n,
            "gradient_calls": [calls] * n,
            "zero_gradients": [zero] * n,
            "key": "k",
            "status": 0,
            **dict.fromkeys(doubts.ATTACK, "a"),
        },
        schema_overrides={"history": pl.List(pl.Float64), "status": pl.Int64},
    )


def test_doubts_are_red_when_their_sign_is_there_and_clear_when_not():
    """On as many images as it takes to tell."""
    yes, no = crafted([True] * 400), crafted([False] * 400)
    half = crafted([True] * 200 + [False] * 200)
    assert doubts.unbounded(half).verdict == "red" and doubts.unbounded(yes).verdict == "clear"
    assert doubts.unbounded(crafted([False] + [True] * 399, wrong=[True] + [False] * 399)).verdict == "clear"
    assert doubts.larger_epsilon({0.1: yes, 0.2: half}).verdict == "red"
    assert doubts.larger_epsilon({0.1: half, 0.2: yes}).verdict == "clear"
    assert doubts.gradients(crafted([True] * 4, zero=5)).verdict == "red" and doubts.gradients(yes).verdict == "clear"
    for own, other, expected in ((half, yes, "red"), (yes, half, "clear"), (yes, yes, "clear")):
        assert doubts.transfer(own, other, "x", "y").verdict == expected
    near, far, search = yes.with_columns(distance=1.0), yes.with_columns(distance=1.2), pl.lit(None, pl.Float64)
    for own, other, expected in ((far, near, "red"), (near, far, "clear"), (near, near, "clear")):
        first, second = own.with_columns(epsilon=search), other.with_columns(epsilon=search)
        assert doubts.transfer(first, second, "x", "y").verdict == expected, "undercut: not at the minimum"
    swapped = crafted([False] * 200 + [True] * 200)
    assert doubts.transfer(half, swapped, "x", "y").verdict == "red", "as many lost as gained is no agreement"
    settled, late = (crafted([True] * 400, history=[[2.0, last]] * 400) for last in (1.99, 1.5))
    assert doubts.converged(settled).verdict == "clear" and doubts.converged(late).verdict == "red"
    assert doubts.converged(yes).verdict == "red", "an image that falls in the last round shows a search cut short"
    assert doubts.converged(no).verdict == "red", "nothing limits the norm, so an image never broken is a failed search"
    judged = pl.DataFrame(
        {"image": "i", "attack_success": [True] * 400, "scale": 0.95, "correct": False, "status": [0] * 300 + [1] * 100}
    )
    assert doubts.slack(judged).verdict == "red" and doubts.solver_failures(judged, yes).verdict == "red"
    assert doubts.solver_failures(judged.with_columns(status=0), no).verdict == "clear"
    assert doubts.solver_failures(judged.with_columns(status=0), no.with_columns(status=1)).verdict == "red"
    assert doubts.slack(judged.with_columns(correct=True)).verdict == "clear"
    assert doubts.slack(judged.with_columns(status=1)).verdict == "clear", "an abstention fools nobody"
    assert doubts.any_open([doubts.converged(no.clear())]) and not doubts.any_open([doubts.converged(settled)])


def test_doubts_are_unknown_where_too_few_images_tell():
    """What is on none of forty images may be on 9 % of all; on a few images a sign may be chance."""
    yes, one = crafted([True] * 40), crafted([True] * 39 + [False])
    frame = pl.DataFrame({"image": yes["image"], "attack_success": True, "scale": 0.95, "correct": True, "status": 0})
    for asked in (
        doubts.unbounded(yes),
        doubts.larger_epsilon({0.1: yes, 0.2: yes}),
        doubts.larger_epsilon({0.1: yes, 0.2: one}),
        doubts.gradients(yes),
        doubts.transfer(yes, yes, "x", "y"),
        doubts.transfer(one, yes, "x", "y"),
        doubts.converged(crafted([True] * 40, history=[[2.0, 2.0]] * 40)),
        doubts.slack(frame),
        doubts.solver_failures(frame, yes),
    ):
        assert asked.verdict == "unknown", asked.question
    empty = yes.clear()
    for asked in (
        doubts.unbounded(empty),
        doubts.larger_epsilon({0.1: yes}),
        doubts.gradients(empty),
        doubts.gradients(crafted([True] * 400, calls=0)),
        doubts.transfer(empty, empty, "x", "y"),
        doubts.converged(empty),
        doubts.slack(frame.clear()),
        doubts.solver_failures(frame.clear(), empty),
    ):
        assert asked.verdict == "unknown", asked.question


def test_scored_votes_are_those_of_the_detector(tmp_path, oon, test_digits):
    ledger = Ledger(tmp_path)
    draws = tuple(Condition(1e-3, random=LogUniform(), draw=draw) for draw in range(5))
    unit = Judge("tolerance vote", ODE, SOME, draws)
    unit.run(ledger)
    ledger.label([("judged", unit.key, "", "tolerance vote", None)])
    detection.score(ledger)
    rows = ledger.read("scored").filter(pl.col("detector") == "tolerance vote, V = 5").sort("image")
    some = test_digits[:20]
    expected = dict(zip(some.ids, ToleranceVote(oon, votes=5).score(some.images, some.ids).tolist(), strict=True))
    assert dict(zip(rows["image"].to_list(), rows["score"].to_list(), strict=True)) == expected


def test_detection_by_hand():
    clean, attacked = np.array([0.0, 0, 0, 0, 0, 0, 0, 0, 0, 3.0]), np.array([0.0, 2.0, 4.0, 5.0])
    held_out = np.array([0.0] * 9 + [2.0])

    def frame(name, clean, attacked):
        kinds = ["clean"] * len(clean) + ["adversarial"] * len(attacked) + ["calibration"] * len(held_out)
        scores = [*clean, *attacked, *held_out]
        images = [f"i{i}" for i in range(len(scores))]
        return pl.DataFrame({"detector": name, "kind": kinds, "scale": 1.0, "score": scores, "image": images})

    scored = pl.concat([frame("d", clean, attacked), frame("opposite", -clean, -attacked)])
    found = detection.detection(scored, "d", 1.0, allowed=0.2)
    wins = sum((a > c) + 0.5 * (a == c) for a in attacked for c in clean) / 40
    assert found.area.value == pytest.approx(wins) and found.area.low <= wins <= found.area.high
    assert found.false_alarms.value == 0.1 and found.caught.value == 0.75, (
        "threshold 0: one of ten calibration images above"
    )
    strict = detection.detection(scored, "d", 1.0, allowed=0.1)
    assert strict.caught.value == 0.5 and strict.false_alarms.value == 0.1, "threshold 2, set without the test images"
    none = detection.detection(scored, "d", 1.0, allowed=0.05)
    assert none.caught.value == none.false_alarms.value == 0.0, "ten images cannot tell one in twenty"
    gap = detection.area_difference(scored, "d", "opposite", 1.0)
    assert gap.value == pytest.approx(2 * wins - 1) and gap.low <= gap.value <= gap.high
    same = detection.area_difference(scored, "d", "d", 1.0)
    assert same.value == 0 and same.low == -same.high < 0, "equal on these images is not equal on all"
    x, y = detection.acceptance(clean, attacked)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1) and ((x >= 0.25) | (y == 0)).all()
    assert not detection.detection(scored, "d", 1.1).area.n


def test_success_past_a_detector_by_hand():
    """Of ten attacked images, one was wrong before; seven of nine fool the net, and three of those look harmless."""
    images = [f"i{i}" for i in range(10)]
    crafted = pl.DataFrame(
        {"image": images, "success": [True] * 7 + [False] * 3, "initially_wrong": [False] * 9 + [True]}
    )
    scores = [0.1, 0.2, 0.3, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0]
    held_out = [0.0] * 19 + [0.5]
    scored = pl.DataFrame(
        {
            "image": [*images, *(f"c{i}" for i in range(20))],
            "detector": "d",
            "kind": ["adversarial"] * 10 + ["calibration"] * 20,
            "scale": 1.0,
            "score": [*scores, *held_out],
        }
    )
    assert detection.success_past(crafted, scored, "d", 0.05).value == pytest.approx(3 / 9)
    assert detection.success_past(crafted, scored, "d", 0.01).value == pytest.approx(7 / 9), "too few to refuse so few"
    assert detection.success_past(crafted, scored, "d", 0.1).value == 0, "threshold 0 refuses all that is above"
    assert detection.precision(1.0, 0.01) == pytest.approx(0.01 / (0.01 + 0.0099))
    assert math.isnan(detection.precision(0.0, 0.0))


def test_intervals():
    assert intervals.rate(0, 0).percent == "no data"
    wilson = intervals.rate(9, 10)
    assert (wilson.low, wilson.high) == pytest.approx((0.5958, 0.9821), abs=1e-3)
    normal = intervals.mean(np.random.default_rng(0).normal(size=400))
    assert normal.low < 0.1 and normal.high > -0.1 and 0.15 < normal.high - normal.low < 0.25
    many = np.random.default_rng(0).normal(size=intervals.MANY + 1)
    few = intervals.mean(many[:-1])
    assert intervals.mean(many).low == pytest.approx(few.low, abs=2e-3), "the normal interval meets the bootstrap"
    none, every = intervals.mean(-np.ones(20)), intervals.mean(np.ones(20))
    assert (none.low, none.high) == (-1, -every.low) and none.high > -1, "equal numbers are no certainty"
    some = intervals.median(np.random.default_rng(0).normal(size=401))
    assert some.low < 0 < some.high and 0.2 < some.high - some.low < 0.4  # 4 x 1.2533 / sqrt(401) = 0.25
    assert (
        intervals.median(np.array([1.0, np.inf, 2.0])).value == 2 and intervals.median(np.full(3, np.inf)).low == np.inf
    )
    assert intervals.auroc(np.zeros(9), np.ones(9)).value == 1 and intervals.auroc(np.ones(5), np.ones(5)).value == 0.5


def test_an_area_under_the_roc_is_uncertain_even_where_all_are_told_apart():
    """No bootstrap of what is perfectly separated sees anything else; the interval narrows with the images, to either end."""
    few, many = (intervals.auroc(np.zeros(2 * n), np.ones(n)) for n in (10, 100))
    assert few.value == few.high == many.high == 1 and few.low < 0.9 < many.low < 1
    mixed = intervals.auroc(np.ones(20), np.zeros(10))
    assert (mixed.low, mixed.high) == pytest.approx((0, 1 - few.low))
    equal = intervals.auroc_difference(np.zeros(20), np.ones(10), np.zeros(20), np.ones(10))
    assert equal.value == 0 and equal.high == -equal.low == pytest.approx(1 - few.low)


@pytest.mark.parametrize(("area", "spread"), [(0.8, 1.0), (0.95, 1.0), (0.99, 1.0), (0.9, 3.0), (0.99, 0.3)])
def test_intervals_of_areas_hold_the_area(area, spread):
    """Of normal scores, whose attacked ones spread as much as the clean ones, more or less: in 95 % of samples, or nearly."""
    generator, held = np.random.default_rng(0), 0
    shift = norm.ppf(area) * np.hypot(1, spread)
    for _ in range(150):
        found = intervals.auroc(generator.normal(size=40), generator.normal(shift, spread, 20))
        held += found.low <= area <= found.high
    assert held >= 0.9 * 150


def test_intervals_do_not_depend_on_the_order_of_the_rows():
    one, two, three, four = np.random.default_rng(0).normal(size=(4, 30)).round(1)
    mixed, other = (np.random.default_rng(seed).permutation(30) for seed in (1, 2))
    assert intervals.mean(one) == intervals.mean(one[mixed]) and intervals.median(one) == intervals.median(one[mixed])
    assert intervals.mean_ratio(one, two + 9) == intervals.mean_ratio(one[mixed], two[mixed] + 9)
    assert intervals.auroc(one, two) == intervals.auroc(one[mixed], two[other])
    paired = intervals.auroc_difference(one, two, three, four)
    assert paired == intervals.auroc_difference(one[mixed], two[other], three[mixed], four[other])
    assert paired.low < paired.value < paired.high


def test_a_minimum_norm_attack_that_fails_is_recorded_as_infinitely_far(tmp_path):
    ledger = Ledger(tmp_path)
    Craft("try", CarliniWagner(steps=1, binary_search_steps=1), RES, SOME).run(ledger)
    rows = ledger.read("crafted").filter(~pl.col("initially_wrong"))
    assert not rows["success"].any() and rows["distance"].is_infinite().all() and (rows["l2"] == 0).all()
