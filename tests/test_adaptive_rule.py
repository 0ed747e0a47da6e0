"""The adaptive attacks on any defense, and the rule by which a random one is judged against them."""

import numpy as np
import polars as pl
import pytest

import odefend
from odefend.attacks import PGD
from odefend.defenses import RandomizedNet
from odefend.engine import Craft
from odefend.experiments import DataPart, Expansion, Experiment, ModelPart
from odefend.metrics.measures import worst_draws
from odefend.studies.robustness import ADAPTIVE, knowing_the_defense

DEFENSES = {
    "none": (),
    "bits": {"name": "bit-depth", "bits": 2},
    "noise": {"name": "input-noise", "sigma": 0.1},
}
TRIAL = Experiment(
    name="trial",
    data={"test": DataPart(set="digits", count=4)},
    models={name: ModelPart(net="digits-res", defense=defense) for name, defense in DEFENSES.items()},
    attacks=knowing_the_defense(tuple(DEFENSES), "none", 0.1, steps=4, followed=(2, 3)),
)


def right(draws, margin=None):
    """Each image's share of right draws under the worst attack, of images x attacks x draws; margins as given, or none."""
    draws = np.asarray(draws)
    images, attacks, numbers = np.indices(draws.shape).reshape(3, -1)
    judged = pl.DataFrame(
        {
            "image": [f"{i:03d}" for i in images],
            "crafted": [f"attack {i}" for i in attacks],
            "scale": 1.0,
            "draw": numbers,
            "correct": draws.reshape(-1).astype(bool),
            "true_margin": np.zeros(draws.size) if margin is None else np.asarray(margin, float).reshape(-1),
        }
    )
    return 1 - worst_draws(judged, ~pl.col("correct")).sort("image")["value"].to_numpy()


def test_luck_with_the_draws_of_the_judge_wins_nothing():
    """Of 20 attacks each fools every draw with probability a half, by luck alone, so half of the draws stay right whichever is
    chosen. The best of them on three draws that also judge would be credited with nearly all."""
    lucky = np.random.default_rng(0).random((400, 20, 3)) < 0.5
    assert right(lucky).mean() == pytest.approx(0.5, abs=0.04)
    assert lucky.mean(2).min(1).mean() < 0.1


def test_an_attack_that_is_better_is_chosen():
    """Image by image: the second fools all draws of the first image, the first three of four of the other."""
    found = right([[[1, 1, 0, 1], [0, 0, 0, 0]], [[0, 0, 0, 1], [1, 1, 1, 1]]])
    assert found.tolist() == [0.0, 0.25]


def test_of_equals_the_one_that_leaves_the_least_margin_under_the_others_is_chosen():
    """By the other draws' margins, not by that of the draw that judges, where the second one's would be less."""
    draws = [[[0, 1, 1], [1, 1, 1]]]
    # Judged by draw 0, both have the others right: the margins decide. By draws 1 and 2, the first has one wrong.
    assert right(draws, [[[-1, 1, 1], [9, 9, 9]]]) == pytest.approx(2 / 3)
    assert right(draws, [[[-1, 9, 9], [9, 1, 1]]]) == 1.0


def test_without_draws_the_best_attack_is_known():
    assert right([[[1], [0]], [[1], [1]]]).tolist() == [0.0, 1.0]


def test_a_failed_solve_is_not_right():
    assert right([[[0, 1], [1, 1]]], [[[np.nan, 1.0], [2.0, 2.0]]]) == pytest.approx(0.5)


@pytest.mark.parametrize("model", DEFENSES)
def test_every_defense_meets_as_many_runs_of_as_many_steps(model):
    """From different starts, in the same ball; along draws that no judge makes where there are any; and along the bare net."""
    expansion = Expansion(TRIAL)
    made = [task.unit for name in ADAPTIVE for task in expansion.crafts(name) if task.label.model == model]
    assert len(made) == 6 and len({unit.key for unit in made}) == 6
    (spec,), (bare,) = expansion.models(model), expansion.models("none")
    for seed, (name, unit) in enumerate(zip(ADAPTIVE, made, strict=True)):
        assert isinstance(unit, Craft) and isinstance(unit.attack, PGD) and unit.seed == seed
        assert (unit.attack.steps, unit.attack.epsilon, unit.attack.early_stop) == (4, 0.1, False)
        assert unit.model.defense == spec.defense and unit.source == (bare if name == "PGD, bare gradient" else None)
    draws = [unit.model.draws for unit in made if isinstance(unit, Craft)]
    assert draws == ([1, 2, 3, 2, 2, 2] if model == "noise" else [0] * 6)


def test_attackers_draws_are_not_the_judges():
    some = odefend.digits("test")[:4]
    expansion = Expansion(TRIAL)
    (unit,) = (task.unit for task in expansion.crafts("PGD, one draw") if task.label.model == "noise")
    judge = expansion.models("noise")[0].open()
    assert isinstance(unit, Craft) and isinstance(judge, RandomizedNet)
    followed = unit.model.open(some.ids)(some.images)
    assert all(not followed.equal(judge.draw(some.ids, k)(some.images)) for k in range(3))
