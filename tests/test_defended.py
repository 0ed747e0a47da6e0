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
from odefend.errors import InvalidInput, OutputError, UnknownName
from odefend.evaluation import Certify, Condition, Craft, Defended, Judge, Ledger, Runner, Slice, View
from odefend.evaluation.ledger import canonical
from odefend.evaluation.plan import work

ODE, SOME = View("digits-oon", 1e-3), Slice("digits", "test", 0, 20)
NOISE = Defended("input-noise", '{"sigma": 0.2}')
VOTE = Defended("averaged", '{"defense": {"name": "input-noise", "sigma": 0.2}, "draws": 3}')
BITS = Defended("bit-depth", '{"bits": 1}')
ATTACK = PGD(0.2, steps=3)


def behind(defense, **settings):
    return replace(ODE, defense=defense, **settings)


def test_a_view_is_the_net_behind_its_defense(oon, test_digits):
    """And one with draws is the mean over draws that no judge makes."""
    some = test_digits[:20]
    with torch.no_grad():
        for defense, expected in (
            (BITS, BitDepth(1)),
            (NOISE, InputNoise(0.2)),
            (Defended("tolerance", '{"tolerance": 1}'), FixedTolerance(1.0)),
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


def test_an_unknown_defense_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'input-noise'"):
        behind(Defended("input-nois")).open()


def test_images_are_crafted_against_the_defense_and_judged_by_its_draws(tmp_path, oon, test_digits):
    ledger, some = Ledger(tmp_path), test_digits[:20]
    craft = Craft("adaptive", ATTACK, behind(NOISE, draws=2), SOME)
    judge = Judge(
        "judged",
        behind(NOISE),
        SOME,
        tuple(Condition(draw=draw, scale=s) for s in (1.0, 1.5) for draw in (0, 7)),
        craft,
    )
    with Runner(tmp_path, 1) as runner:
        runner.run([(craft, 1.0), (judge, 1.0)], lambda _: None)
    crafted, judged = ledger.read("crafted"), ledger.read("judged")
    hidden = InputNoise(0.2, seed=1)(oon)
    source = Expectation([hidden.draw(some.ids, index) for index in range(2)])
    found = ATTACK(source, some.images, some.labels, ids=some.ids)
    assert (
        torch.equal(ledger.read_images(craft.key), found.images)
        and crafted["success"].to_list() == found.success.tolist()
    )
    assert (
        json.loads(crafted["defense"][0]) == {"name": "input-noise", "sigma": 0.2} and crafted["source_draws"][0] == 2
    )
    assert judged["defense"].unique().to_list() == ["input-noise"] and judged["settings"][0] == crafted["defense"][0]
    for (draw, scale), rows in judged.group_by("draw", "scale", maintain_order=True):
        images = (some.images + scale * (found.images - some.images)).clamp(0, 1) if scale > 1 else found.images
        with torch.no_grad():
            said = InputNoise(0.2)(oon).draw(some.ids, draw).predict(images)
        assert rows["image"].to_list() == list(some.ids)
        assert rows["prediction"].to_list() == said.labels.tolist() and rows["nfe"].to_list() == said.nfe.tolist()


def test_what_decides_a_unit_is_in_its_key(monkeypatch):
    """The defense, its settings, the draws, and the weights of what it puts before the net."""
    views = [
        ODE,
        behind(NOISE),
        behind(NOISE, draws=1),
        behind(NOISE, draws=2),
        behind(Defended("input-noise", '{"sigma": 0.1}')),
        behind(BITS),
    ]
    for unit in (Craft("x", ATTACK, ODE, SOME), Judge("x", ODE, SOME, (Condition(),))):
        assert len({replace(unit, view=view).key for view in views}) == len(views)
    purified = replace(ODE, defense=Defended("purification"))
    before = Craft("x", ATTACK, purified, SOME).key

    def altered(net, model):
        net = Purification.__call__(model, net)
        for value in net.autoencoder.parameters():
            value.data = value.data + 1e-3
        return net

    monkeypatch.setattr(Defended, "open", lambda self, reseed=0: lambda net: altered(net, Purification()))
    assert Craft("x", ATTACK, purified, SOME).key != before


def test_a_defended_net_is_judged_under_draws_alone(tmp_path):
    with pytest.raises(ValueError, match="no other conditions than draw and scale"):
        Judge("x", behind(NOISE), SOME, (Condition(sigma=0.1),)).run(Ledger(tmp_path))


def test_a_vote_costs_its_draws():
    craft, judge = Craft("x", ATTACK, ODE, SOME), Judge("x", ODE, SOME, (Condition(),))
    assert work(replace(judge, view=behind(VOTE))) == 3 * work(judge)
    assert work(replace(craft, view=behind(VOTE, draws=2))) == 9 * work(craft)
    assert work(replace(craft, view=behind(BITS))) == work(craft)


@pytest.mark.parametrize("where", ["input", "state"])
def test_certified_rows_are_those_of_the_certificate(where, tmp_path, oon, test_digits):
    some, smoothing = test_digits[:20], Smoothing(0.1, where=where)
    defense = Defended("smoothing", canonical({"sigma": 0.1, "where": where}))
    unit = Certify("x", behind(defense), SOME, 10, 40, 0.01)
    with Runner(tmp_path, 1) as runner:
        runner.run([(unit, work(unit))], lambda _: None)
    rows, found = (
        Ledger(tmp_path).read("certified"),
        smoothing.certify(oon, some.images, some.ids, n0=10, n=40, alpha=0.01),
    )
    assert rows["image"].to_list() == list(some.ids) and rows["experiment"].unique().to_list() == ["x"]
    assert rows["radius"].to_list() == found.radius.tolist() and max(rows["radius"]) > 0
    assert rows["prediction"].to_list() == found.labels.tolist() and rows["nfe"].to_list() == found.nfe.tolist()
    assert rows["correct"].to_list() == (found.labels == some.labels).tolist()
    others = [
        replace(unit, **change)
        for change in (
            {"draws": 41},
            {"selecting": 11},
            {"alpha": 0.02},
            {"view": behind(Defended("smoothing", '{"sigma":0.2}'))},
        )
    ]
    assert len({one.key for one in (unit, *others)}) == 5


def test_only_smoothing_certifies(tmp_path):
    with pytest.raises(InvalidInput, match="expected smoothing, which alone can certify"):
        Certify("x", behind(NOISE), SOME).run(Ledger(tmp_path))


def test_rows_from_before_there_were_defenses_are_read(tmp_path):
    """What was added to a table is null in them; what was always there may not be missing."""
    ledger, craft = Ledger(tmp_path), Craft("x", ATTACK, ODE, SOME)
    craft.run(ledger)
    (path,) = (tmp_path / "crafted").glob("*.parquet")
    rows = pl.read_parquet(path)
    rows.drop("defense").write_parquet(path)
    other = Craft("x", ATTACK, behind(BITS), SOME)
    other.run(ledger)
    for read in (ledger.read("crafted"), ledger.query("SELECT * FROM crafted")):
        assert read.height == 40 and read["defense"].null_count() == 20
    assert ledger.read_shard("crafted", craft.key).equals(rows)
    ledger.pack()
    assert ledger.read("crafted").height == 40 and Ledger(tmp_path).read_shard("crafted", craft.key).equals(rows)
    lacking = Ledger(tmp_path / "lacking")
    craft.run(lacking)
    (path,) = (tmp_path / "lacking" / "crafted").glob("*.parquet")
    rows.drop("epsilon").write_parquet(path)
    with pytest.raises(OutputError, match="its columns differ"):
        lacking.read("crafted")
