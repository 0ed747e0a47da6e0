"""Attackers who know: expectation over a defense's draws, and the best of several sources."""

import dataclasses

import pytest
import torch
from toys import Linear, pictures, small_ode_net

from odefend.attacks import PGD, CarliniWagner, Expectation, strongest
from odefend.defenses import LogUniform, RandomTolerance
from odefend.errors import InvalidInput


def linear(weight):
    return Linear(torch.as_tensor(weight, dtype=torch.float64), torch.zeros(len(weight), dtype=torch.float64)).eval()


def test_an_expectation_is_the_logarithm_of_the_mean_probability():
    generator = torch.Generator().manual_seed(0)
    members = [linear(torch.randn(3, 64, generator=generator, dtype=torch.float64)) for _ in range(4)]
    images = pictures(5)
    mean = torch.stack([one(images).softmax(1) for one in members]).mean(0)
    torch.testing.assert_close(Expectation(members)(images).exp(), mean)
    torch.testing.assert_close(Expectation(members[:1])(images), members[0](images).log_softmax(1))


def test_each_draw_of_a_defense_keeps_its_tolerance_when_rows_are_taken():
    net, images, ids = small_ode_net(), pictures(6), [f"i{k}" for k in range(6)]
    defended = RandomTolerance(LogUniform(1e-5, 1e-1), seed=3)(net)
    together = Expectation([defended.draw(ids, index) for index in range(3)])
    said = together.predict(images)
    some = torch.tensor([4, 1])
    part = together.rows(some).predict(images[some])
    torch.testing.assert_close(part.logits, said.logits[some], rtol=1e-9, atol=1e-9)
    assert torch.equal(part.nfe, said.nfe[some])
    alone = torch.stack([defended.draw(ids, index).predict(images).nfe for index in range(3)])
    assert torch.equal(said.nfe, alone.sum(0)) and len(alone.unique()) > 3


def test_an_answer_needs_every_member():
    net, images = small_ode_net(), pictures(4)
    stuck = Expectation([net, net.at(1e-8, max_steps=1)]).predict(images)
    assert not stuck.answered.any() and net.predict(images).answered.all()


def test_expectation_breaks_what_one_draw_does_not():
    """Two members whose gradients differ: a step along one of them helps against one only, a step along both helps."""
    first, second = torch.zeros(2, 64), torch.zeros(2, 64)
    first[1, 0], second[1, 1] = 10.0, 10.0
    first[0, 5], second[0, 5] = 4.0, 4.0
    members = [linear(first), linear(second)]
    images, labels = torch.full((16, 1, 8, 8), 0.5, dtype=torch.float64), torch.zeros(16, dtype=torch.int64)
    images[:, 0, 0, :2] = 0.0
    # The noise of a random start would help against both.
    attack = PGD(0.3, steps=10, random_start=False)
    knowing = attack(Expectation(members), images, labels)
    assert all((one(knowing.images).argmax(1) == 1).all() for one in members)
    one_draw = attack(members[0], images, labels)
    assert (members[1](one_draw.images).argmax(1) == 0).any()


@pytest.mark.parametrize(
    "attack", [PGD(0.25, steps=5), CarliniWagner(steps=20, binary_search_steps=3, initial_constant=1.0)]
)
def test_the_strongest_is_never_weaker_than_any(attack, oon, res, test_digits):
    some = test_digits[:16]
    sources = [res, None, oon.at(1e-1)]
    runs = [attack(oon, some.images, some.labels, ids=some.ids, source=source) for source in sources]
    best = strongest(attack, oon, some.images, some.labels, sources, ids=some.ids)
    assert torch.equal(best.found.success, torch.stack([run.success for run in runs]).any(0))
    for run in runs:
        assert (best.found.success >= run.success).all()
        if attack.budget is None:
            assert (best.found.distance <= run.distance).all()
    assert torch.equal(best.found.gradient_calls, torch.stack([run.gradient_calls for run in runs]).sum(0))
    for row, number in enumerate(best.source.tolist()):
        assert torch.equal(best.found.images[row], runs[number].images[row])
    again = oon.predict(best.found.images).fooled(some.labels)
    assert torch.equal(again & ~best.found.initially_wrong, best.found.success)


def test_the_first_source_wins_among_equals(oon, test_digits):
    some = test_digits[:16]
    same = strongest(PGD(0.2, steps=3), oon, some.images, some.labels, [None, oon], ids=some.ids)
    assert (same.source == 0).all()
    assert {field.name for field in dataclasses.fields(same.found)} == set(vars(same.found))


def test_wrong_use(oon, res, test_digits):
    with pytest.raises(InvalidInput, match="one classifier or more"):
        Expectation([])
    with pytest.raises(InvalidInput, match="same pictures and classes"):
        Expectation([oon, small_ode_net()])
    with pytest.raises(InvalidInput, match="one or more"):
        strongest(PGD(0.1), oon, test_digits.images[:2], test_digits.labels[:2], [])
