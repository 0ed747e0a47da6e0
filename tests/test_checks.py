"""Checks: failed where a sign of a weak attack is there, passed where it was looked for and is not, unknown where nobody looked."""

import math

import polars as pl
import pytest

from odefend.ledger.schema import LABELS, TABLES
from odefend.metrics import Rows, signs
from odefend.metrics.attacked import attacked_models, standing
from odefend.metrics.checks import checks
from odefend.report.headline import conclusion, standings

IMAGES = 1000


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
            **dict.fromkeys(("attack", "epsilon", "source", "source_rtol", "source_gradient"), "a"),
        },
        schema_overrides={"history": pl.List(pl.Float64), "status": pl.Int64},
    )


def beside(own, other):
    return signs.compared(signs.MORE, {0.1: ({"other": other}, {"own": own})}, 0.1)


def test_checks_fail_when_their_sign_is_there_and_pass_when_not():
    """On as many images as it takes to tell."""
    yes, no = crafted([True] * 400), crafted([False] * 400)
    half = crafted([True] * 200 + [False] * 200)
    assert signs.unbounded([half]).outcome == "failed" and signs.unbounded([yes]).outcome == "passed"
    assert signs.unbounded([half, yes]).outcome == "passed", "one attack that breaks them all is enough"
    assert signs.unbounded([crafted([False] + [True] * 399, wrong=[True] + [False] * 399)]).outcome == "passed"
    assert signs.larger_radius([{0.1: yes, 0.2: half}]).outcome == "failed"
    assert signs.larger_radius([{0.1: half, 0.2: yes}]).outcome == "passed"
    assert signs.gradients(crafted([True] * 4, zero=5)).outcome == "failed" and signs.gradients(yes).outcome == "passed"
    for own, other, expected in ((half, yes, "failed"), (yes, half, "passed"), (yes, yes, "passed")):
        assert beside(own, other).outcome == expected
    near, far = yes.with_columns(distance=1.0), yes.with_columns(distance=1.2)
    for own, other, expected in ((far, near, "failed"), (near, far, "passed"), (near, near, "passed")):
        assert signs.nearer(own, {"other": other}).outcome == expected, "undercut: not at the minimum"
    swapped = crafted([False] * 200 + [True] * 200)
    assert beside(half, swapped).outcome == "failed", "as many lost as gained is no agreement"
    settled, late = (crafted([True] * 400, history=[[2.0, last]] * 400) for last in (1.99, 1.5))
    assert signs.converged(settled).outcome == "passed" and signs.converged(late).outcome == "failed"
    assert signs.converged(yes).outcome == "failed", "an image that falls in the last round shows a search cut short"
    assert signs.converged(no).outcome == "failed", (
        "nothing limits the norm, so an image never broken is a failed search"
    )
    judged = pl.DataFrame(
        {"image": "i", "attack_success": [True] * 400, "scale": 0.95, "correct": False, "status": [0] * 300 + [1] * 100}
    )
    assert signs.minimal(judged).outcome == "failed" and signs.solver_failures(judged, yes).outcome == "failed"
    assert signs.solver_failures(judged.with_columns(status=0), no).outcome == "passed"
    assert signs.solver_failures(judged.with_columns(status=0), no.with_columns(status=1)).outcome == "failed"
    assert signs.minimal(judged.with_columns(correct=True)).outcome == "passed"
    assert signs.minimal(judged.with_columns(status=1)).outcome == "passed", "an abstention fools nobody"
    coupled = pl.DataFrame({"coupling": ["sample", "batch"]})
    assert signs.coupling(coupled).outcome == "failed" and signs.coupling(coupled.head(1)).outcome == "passed"


def test_checks_are_unknown_where_too_few_images_tell():
    """What is on none of forty images may be on 9 % of all; on a few images a sign may be chance."""
    yes, one = crafted([True] * 40), crafted([True] * 39 + [False])
    frame = pl.DataFrame({"image": yes["image"], "attack_success": True, "scale": 0.95, "correct": True, "status": 0})
    near = yes.with_columns(distance=1.0)
    for asked in (
        signs.unbounded([yes]),
        signs.larger_radius([{0.1: yes, 0.2: yes}]),
        signs.larger_radius([{0.1: yes, 0.2: one}]),
        signs.gradients(yes),
        beside(yes, yes),
        beside(one, yes),
        signs.nearer(near, {"other": near}),
        signs.converged(crafted([True] * 40, history=[[2.0, 2.0]] * 40)),
        signs.minimal(frame),
        signs.solver_failures(frame, yes),
    ):
        assert asked.outcome == "unknown", asked.statement
    empty = yes.clear()
    for asked in (
        signs.unbounded([empty]),
        signs.larger_radius([]),
        signs.gradients(empty),
        signs.gradients(crafted([True] * 400, calls=0)),
        beside(empty, empty),
        signs.compared(signs.MORE, {0.1: ({}, {}), 0.2: ({"other": yes}, {"own": yes})}, 0.1),
        signs.converged(empty),
        signs.minimal(frame.clear()),
        signs.solver_failures(frame.clear(), empty),
    ):
        assert asked.outcome == "unknown", asked.statement


def attack(name, epsilon=0.1, calls=40, images=IMAGES, broken=0.25, **columns):
    """Rows of one attack on digits-oon, as if it had broken that share of the images, the first ones."""
    return pl.DataFrame(
        {
            "key": f"{name} {epsilon} {columns.get('rtol', 1e-3)}",
            "image": [f"i{number}" for number in range(images)],
            "label": 1,
            "net": "digits-oon",
            "model": "ode",
            "attack": name,
            "algorithm": "PGD",
            "settings": "{}",
            "rtol": 1e-3,
            "coupling": "sample",
            "norm": "linf",
            "epsilon": epsilon,
            "source": "digits-oon",
            "source_rtol": 1e-3,
            "source_gradient": "unrolled",
            "success": [number < broken * images for number in range(images)],
            "initially_wrong": False,
            "gradient_calls": calls,
            "zero_gradients": 0,
            "status": 0,
            **columns,
        }
    )


def rows_of(*frames, judged=None):
    """Rows of an experiment with nothing but these."""
    tables = {name: pl.DataFrame(schema=schema | LABELS) for name, schema in TABLES.items()}
    made = {"epsilon": pl.Float64, "attacked_at": pl.Float64, "made_on": pl.String}
    for name in ("judged", "scored", "traced"):
        tables[name] = pl.DataFrame(schema=TABLES[name] | LABELS | made)
    tables["crafted"] = pl.concat([tables["crafted"], *frames], how="diagonal_relaxed")
    if judged is not None:
        tables["judged"] = pl.concat([tables["judged"], judged], how="diagonal_relaxed")
    return Rows(tables["crafted"], tables["judged"], tables["scored"], tables["certified"], tables["traced"])


CAREFUL = {
    "PGD": {},
    "PGD, any image": {"epsilon": 1.0, "broken": 1.0},
    "PGD, far": {"epsilon": 0.2},
    "twice": {"calls": 80},
    "tight": {"source_rtol": 1e-5},
    "from the ResNet": {"source": "digits-res", "source_rtol": None},
    "blind": {"calls": 0},
}


def careful(without=(), **changed):
    named = {"PGD, any image": "PGD", "PGD, far": "PGD"}
    kept = {name: settings | changed for name, settings in CAREFUL.items() if name not in without}
    return rows_of(*(attack(named.get(name, name), **settings) for name, settings in kept.items()))


def outcomes(rows):
    return {check.statement: check.outcome for check in checks(rows)}


def test_what_nobody_asked_is_unknown():
    """Five steps beside five steps agree, and tell nothing: no check is left out, and nothing is called more than a bound."""
    careless = rows_of(attack("BIM", calls=5), attack("PGD", calls=5))
    asked = outcomes(careless)
    for statement in (signs.MORE, signs.GRADIENTS, signs.OTHER_NET, signs.NONE, signs.LARGER, signs.UNBOUNDED):
        assert asked[statement] == "unknown", statement
    assert "Nothing here supports a claim of security" in conclusion(standings(careless, checks(careless)))


def test_what_was_asked_of_enough_images_has_passed():
    rows = careful()
    asked = outcomes(rows)
    assert set(asked.values()) == {"passed"}, asked
    assert "No check found a sign of a weak attack" in conclusion(standings(rows, checks(rows)))
    few = {check.statement: check for check in checks(careful(images=40))}
    about_images = [one for name, one in few.items() if name != signs.ALONE]
    assert {one.outcome for one in about_images} == {"unknown"} and few.keys() == asked.keys()


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("twice", signs.MORE),
        ("tight", signs.GRADIENTS),
        ("from the ResNet", signs.OTHER_NET),
        ("blind", signs.NONE),
        ("PGD, any image", signs.UNBOUNDED),
    ],
)
def test_each_check_has_an_attack_that_asks_it(name, statement):
    (unknown,) = (one for one, outcome in outcomes(careful(without=(name,))).items() if outcome != "passed")
    assert unknown == statement


@pytest.mark.parametrize(
    ("name", "statement"),
    [("twice", signs.MORE), ("tight", signs.GRADIENTS), ("from the ResNet", signs.OTHER_NET), ("blind", signs.NONE)],
)
def test_an_attack_that_breaks_more_fails_its_check_and_no_other(name, statement):
    kept = {one: settings | ({"broken": 0.5} if one == name else {}) for one, settings in CAREFUL.items()}
    named = {"PGD, any image": "PGD", "PGD, far": "PGD"}
    asked = outcomes(rows_of(*(attack(named.get(one, one), **settings) for one, settings in kept.items())))
    assert [one for one, outcome in asked.items() if outcome == "failed"] == [statement]


def test_far_less_work_says_nothing_of_more():
    """One step beside forty: that forty break more is no sign that eighty would."""
    asked = outcomes(rows_of(attack("FGSM", calls=1, broken=0.1), attack("PGD", calls=40, broken=0.5)))
    assert asked[signs.MORE] == "unknown"
    worse = outcomes(
        rows_of(attack("FGSM", calls=1, broken=0.1), attack("PGD", calls=40), attack("long", calls=80, broken=0.5))
    )
    assert worse[signs.MORE] == "failed"


def test_where_every_image_is_broken_no_attack_can_break_more():
    asked = outcomes(rows_of(attack("PGD", broken=1.0)))
    assert asked[signs.MORE] == asked[signs.NONE] == asked[signs.OTHER_NET] == "passed"


def test_what_was_asked_at_another_radius_was_not_asked_here():
    rows = rows_of(attack("PGD"), attack("other"), attack("PGD", epsilon=0.3), attack("blind", epsilon=0.3, calls=0))
    (check,) = (one for one in checks(rows) if one.statement == signs.NONE)
    assert check.outcome == "unknown" and "radius 0.3" in check.finding and "not tried at radius 0.1" in check.finding


def test_models_are_told_apart_by_what_is_attacked_and_not_by_their_names():
    """The same net at the same tolerance under two names is one model; at another, or past a detector, it is another."""
    rows = rows_of(
        attack("PGD"),
        attack("twice", calls=80, model="the same"),
        attack("PGD", rtol=0.1, source_rtol=0.1),
        attack("PGD", past="margin", alarms=0.05),
    )
    models = attacked_models(rows, ["the same", "ode"])
    assert [model.text for model in models] == [
        "the same",
        "ode, tolerance 0.001, past margin, at 5% false alarms",
        "ode, tolerance 0.1",
    ]
    asked = {(check.model, check.where): check.outcome for check in checks(rows) if check.statement == signs.MORE}
    assert sorted(asked.values()) == ["passed", "unknown", "unknown"]
    assert [one.model for one in standings(rows, checks(rows)) if "margin" in one.model] == []


def test_images_that_settings_are_chosen_on_are_not_mixed_with_those_that_judge_them():
    rows = rows_of(attack("PGD", broken=0.5, data="test"), attack("PGD, validation", data="validation"))
    models = attacked_models(rows)
    assert sorted(model.text for model in models) == ["ode, on test", "ode, on validation"]
    robust = [standing(rows, model, model.balls[0])[1] for model in models]
    assert all(one.n == IMAGES for one in robust) and {one.value for one in robust} >= {0.5}


def test_a_model_that_draws_is_asked_about_its_draws():
    few, many = attack("PGD", source_draws=4), attack("more draws", source_draws=16, broken=0.5)
    asked = outcomes(rows_of(few))
    assert asked[signs.DRAWS] == asked[signs.UNSEEN] == "unknown"
    assert outcomes(rows_of(few, many))[signs.DRAWS] == "failed"
    shown = pl.DataFrame(
        {"key": "j", "image": ["i1"] * 2, "model": "ode", "rtol": 1e-3, "kind": "adversarial", "crafted": few["key"][0],
         "draw": [0, 1], "status": 0, "scale": 1.0, "correct": True}
    )  # fmt: skip
    assert outcomes(rows_of(few, judged=shown))[signs.UNSEEN] == "passed"


def test_how_a_model_stands_counts_every_attack_in_the_ball():
    """Ten images, one wrong before: PGD breaks four, another attack one more, and an attack of a larger ball does not count."""
    wrong = [False] * 9 + [True]
    some = {"images": 10, "initially_wrong": wrong}
    rows = rows_of(
        attack("PGD", broken=0.4, **some),
        attack("other", success=[False] * 4 + [True] + [False] * 5, **some),
        attack("PGD", epsilon=0.3, broken=0.9, **some),
    )
    (model,) = attacked_models(rows)
    (ball,) = model.balls
    clean, robust = standing(rows, model, ball)
    assert ball.radius == 0.1 and clean.value == 0.9 and robust.value == pytest.approx(0.4) and robust.n == 10
