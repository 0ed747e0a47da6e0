"""Nets behind defenses in units of work: what is attacked, what judges see, and what is certified."""

import json
from dataclasses import replace

import polars as pl
import pytest
import torch

from odefend.attacks import PGD, Expectation
from odefend.defenses import (
    Averaged,
    BitDepth,
    FixedTolerance,
    InputNoise,
    Purification,
    Smoothing,
)
from odefend.engine import Certify, Craft, DefenseSpec, ModelSpec, Predict, Reshown, Slice
from odefend.errors import InvalidInput, OutputError, UnknownName
from odefend.ledger import Ledger, canonical

ODE, SOME = ModelSpec("digits-oon", 1e-3), Slice("digits", "test", 0, 20)
NOISE = DefenseSpec("input-noise", '{"sigma": 0.2}')
VOTE = DefenseSpec("averaged", '{"defense": {"name": "input-noise", "sigma": 0.2}, "draws": 3}')
BITS = DefenseSpec("bit-depth", '{"bits": 1}')
ATTACK = PGD(0.2, steps=3)


def behind(defense, **settings):
    return replace(ODE, defense=defense, **settings)


def test_a_model_is_the_net_behind_its_defense(oon, test_digits):
    """And one with draws is the mean over draws that no judge makes."""
    some = test_digits[:20]
    with torch.no_grad():
        for defense, expected in (
            (BITS, BitDepth(1)),
            (NOISE, InputNoise(0.2)),
            (DefenseSpec("tolerance", '{"tolerance": 1}'), FixedTolerance(1.0)),
        ):
            assert torch.equal(behind(defense).open()(some.images), expected(oon)(some.images))
        hidden = InputNoise(0.2, seed=1)(oon)
        mean = Expectation([hidden.draw(some.ids, index) for index in range(4)])
        assert torch.equal(behind(NOISE, draws=4).open(some.ids)(some.images), mean(some.images))
        votes = Averaged(InputNoise(0.2, seed=1), 3)(oon)
        mean = Expectation([votes.draw(some.ids, index) for index in range(2)])
        assert torch.equal(behind(VOTE, draws=2).open(some.ids)(some.images), mean(some.images))
        # Where there is nothing to draw, draws change nothing.
        assert torch.equal(behind(BITS, draws=4).open(some.ids)(some.images), BitDepth(1)(oon)(some.images))


def test_a_defense_is_read_back_from_its_text():
    assert [DefenseSpec.read(one.text).text for one in (NOISE, VOTE, BITS)] == [NOISE.text, VOTE.text, BITS.text]
    assert DefenseSpec.read(VOTE.text).open() == VOTE.open()


def test_an_unknown_defense_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'input-noise'"):
        behind(DefenseSpec("input-nois")).open()


def test_images_are_crafted_against_the_defense_and_judged_by_its_draws(tmp_path, oon, test_digits):
    ledger, some = Ledger(tmp_path), test_digits[:20]
    craft = Craft(ATTACK, behind(NOISE, draws=2), SOME)
    for unit in (craft, Predict(behind(NOISE), SOME, craft, Reshown((1.0, 1.5)), (0, 7))):
        unit.run(ledger)
    crafted, judged = ledger.rows("crafted"), ledger.rows("judged")
    hidden = InputNoise(0.2, seed=1)(oon)
    source = Expectation([hidden.draw(some.ids, index) for index in range(2)])
    found = ATTACK(source, some.images, some.labels, ids=some.ids)
    assert torch.equal(ledger.read_images(craft.key), found.images)
    assert crafted["success"].to_list() == found.success.tolist()
    assert json.loads(crafted["defense"][0]) == {"name": "input-noise", "sigma": 0.2}
    assert crafted["source_draws"][0] == 2 and judged["defense"].unique().to_list() == [crafted["defense"][0]]
    assert judged.select("draw", "scale").n_unique() == 4
    for (draw, scale), rows in judged.group_by("draw", "scale", maintain_order=True):
        images = (some.images + scale * (found.images - some.images)).clamp(0, 1) if scale > 1 else found.images
        with torch.no_grad():
            said = InputNoise(0.2)(oon).draw(some.ids, draw).predict(images)
        assert rows["image"].to_list() == list(some.ids)
        assert rows["prediction"].to_list() == said.labels.tolist() and rows["nfe"].to_list() == said.nfe.tolist()


def test_what_decides_a_unit_is_in_its_key(monkeypatch):
    """The defense, its settings, the draws, and the weights of what it puts before the net."""
    models = [
        ODE,
        behind(NOISE),
        behind(NOISE, draws=1),
        behind(NOISE, draws=2),
        behind(DefenseSpec("input-noise", '{"sigma": 0.1}')),
        behind(BITS),
    ]
    for unit in (Craft(ATTACK, ODE, SOME), Predict(ODE, SOME)):
        assert len({replace(unit, model=model).key for model in models}) == len(models)
    purified = replace(ODE, defense=DefenseSpec("purification"))
    before = Craft(ATTACK, purified, SOME).key

    def altered(net, model):
        net = Purification.__call__(model, net)
        for value in net.autoencoder.parameters():
            value.data = value.data + 1e-3
        return net

    monkeypatch.setattr(DefenseSpec, "open", lambda self, reseed=0: lambda net: altered(net, Purification()))
    assert Craft(ATTACK, purified, SOME).key != before


def test_a_vote_costs_its_draws():
    craft, judge = Craft(ATTACK, ODE, SOME), Predict(ODE, SOME)
    assert replace(judge, model=behind(VOTE)).cost == 3 * judge.cost
    assert replace(craft, model=behind(VOTE, draws=2)).cost == 9 * craft.cost
    assert replace(craft, model=behind(BITS)).cost == craft.cost


@pytest.mark.parametrize("where", ["input", "state"])
def test_certified_rows_are_those_of_the_certificate(where, tmp_path, oon, test_digits):
    some, smoothing = test_digits[:20], Smoothing(0.1, where=where)
    defense = DefenseSpec("smoothing", canonical({"sigma": 0.1, "where": where}))
    unit = Certify(behind(defense), SOME, 10, 40, 0.01)
    unit.run(Ledger(tmp_path))
    rows = Ledger(tmp_path).rows("certified")
    found = smoothing.certify(oon, some.images, some.ids, n0=10, n=40, alpha=0.01)
    assert rows["image"].to_list() == list(some.ids) and rows["sigma"].unique().to_list() == [0.1]
    assert rows["radius"].to_list() == found.radius.tolist() and max(rows["radius"]) > 0
    assert rows["prediction"].to_list() == found.labels.tolist() and rows["nfe"].to_list() == found.nfe.tolist()
    assert rows["correct"].to_list() == (found.labels == some.labels).tolist()
    others = [
        replace(unit, **change)
        for change in (
            {"draws": 41},
            {"selecting": 11},
            {"alpha": 0.02},
            {"model": behind(DefenseSpec("smoothing", '{"sigma":0.2}'))},
        )
    ]
    assert len({one.key for one in (unit, *others)}) == 5


def test_only_smoothing_certifies(tmp_path):
    with pytest.raises(InvalidInput, match="expected smoothing, which alone can certify"):
        Certify(behind(NOISE), SOME).run(Ledger(tmp_path))


def test_rows_of_other_columns_are_refused_by_name(tmp_path):
    ledger, craft = Ledger(tmp_path), Craft(ATTACK, ODE, SOME)
    craft.run(ledger)
    (path,) = (tmp_path / "crafted").glob("*.parquet")
    pl.read_parquet(path).drop("defense").write_parquet(path)
    with pytest.raises(OutputError, match=f"{path.name}: written by another version of odefend"):
        ledger.rows("crafted")
