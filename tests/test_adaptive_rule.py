"""The adaptive attacks on any defense, and the rule by which a random one is judged against them."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import odefend
from odefend.attacks import PGD
from odefend.defenses import RandomizedNet
from odefend.evaluation import Defended, Slice, View
from odefend.evaluation.adaptive import ADAPTIVE, Adaptive, under_fresh_draws

SUITE = Adaptive(0.1, steps=4, few=2, many=3)
SOME = Slice("digits", "test", 0, 4)
RES = View("digits-res")


def judged(right, margin=None):
    """Rows of attacks x draws for each image; margins as given, or none."""
    right = np.asarray(right)
    images, attacks, draws = np.indices(right.shape).reshape(3, -1)
    return pl.DataFrame(
        {
            "image": [f"{i:03d}" for i in images],
            "crafted": [f"attack {i}" for i in attacks],
            "draw": draws,
            "correct": right.reshape(-1).astype(bool),
            "true_margin": np.zeros(right.size) if margin is None else np.asarray(margin, float).reshape(-1),
        }
    )


def test_luck_with_the_draws_of_the_judge_wins_nothing():
    """Of 20 attacks each fools every draw with probability a half, by luck alone, so half of the draws stay right whichever is
    chosen. The best of them on three draws that also judge would be credited with nearly all."""
    lucky = np.random.default_rng(0).random((400, 20, 3)) < 0.5
    assert under_fresh_draws(judged(lucky))["right"].mean() == pytest.approx(0.5, abs=0.04)
    assert lucky.mean(2).min(1).mean() < 0.1


def test_an_attack_that_is_better_is_chosen():
    """Image by image: the second fools all draws of the first image, the first three of four of the other."""
    right = [[[1, 1, 0, 1], [0, 0, 0, 0]], [[0, 0, 0, 1], [1, 1, 1, 1]]]
    found = under_fresh_draws(judged(right))
    assert found["image"].to_list() == ["000", "001"] and found["right"].to_list() == [0.0, 0.25]


def test_of_equals_the_one_that_leaves_the_least_margin_under_the_others_is_chosen():
    """By the other draws' margins, not by that of the draw that judges, where the second one's would be less."""
    right = [[[1, 1, 1], [1, 1, 1]]]
    right[0][0][0] = 0
    by_first = under_fresh_draws(judged(right, [[[-1, 1, 1], [9, 9, 9]]]))["right"].item()
    # Judged by draw 0, both have the others right: the margins decide. By draws 1 and 2, the first has one wrong.
    assert by_first == pytest.approx(2 / 3)
    assert under_fresh_draws(judged(right, [[[-1, 9, 9], [9, 1, 1]]]))["right"].item() == 1.0


def test_without_draws_the_best_attack_is_known():
    found = under_fresh_draws(judged([[[1], [0]], [[1], [1]]]))
    assert found["right"].to_list() == [0.0, 1.0]


def test_a_failed_solve_is_not_right():
    rows = judged([[[0, 1], [1, 1]]], [[[np.nan, 1.0], [2.0, 2.0]]])
    assert under_fresh_draws(rows)["right"].item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "defense", [None, Defended("bit-depth", '{"bits":2}'), Defended("input-noise", '{"sigma":0.1}')]
)
def test_every_defense_meets_as_many_runs_of_as_many_steps(defense):
    """From different starts, in the same ball; along draws that no judge makes where there are any; and along the bare net."""
    made = SUITE.against(RES, defense, SOME)
    random = defense is not None and defense.name == "input-noise"
    assert tuple(one.experiment for one in made) == ADAPTIVE and len({one.seed for one in made}) == len(made)
    for one in made:
        assert isinstance(one.attack, PGD) and one.attack.steps == 4 and one.attack.epsilon == 0.1
        assert one.attack.early_stop != random and one.view == replace(RES, defense=defense, draws=one.view.draws)
    assert [one.view.draws for one in made] == ([1, 2, 3, 2, 2, 2] if random else [0] * 6)
    assert [one.source for one in made] == [None] * 5 + [RES if defense else None]
    assert len({(one.attack, one.view, one.source, one.seed) for one in made}) == 6


def test_attackers_draws_are_not_the_judges():
    ids = odefend.digits("test").ids[:4]
    noise = Defended("input-noise", '{"sigma":0.1}')
    images = odefend.digits("test")[:4].images
    (own, *_), judge = SUITE.against(RES, noise, SOME), replace(RES, defense=noise).open()
    assert isinstance(judge, RandomizedNet)
    followed = own.view.open(ids)(images)
    assert all(not followed.equal(judge.draw(ids, k)(images)) for k in range(3))
