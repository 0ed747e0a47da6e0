"""Random tolerance, noise, the vote and the margin: deterministic per image, and what they count."""

import pytest
import torch
from toys import Linear

from odefend.attacks import PGD
from odefend.defenses import DEFENSES, InputNoise, InputTransform, LogUniform, RandomTolerance
from odefend.detectors import OnePassMargin, ToleranceVote, agreement
from odefend.errors import InvalidInput


@pytest.mark.parametrize(
    "defense", [RandomTolerance(LogUniform(1e-4, 1.0)), InputNoise(0.05), InputTransform("median-3")], ids=repr
)
def test_contract_of_a_defense(defense, oon, test_digits):
    """A classifier comes out: deterministic, independent of the batch, and every attack runs on it."""
    some = test_digits[:24]
    net = defense(oon)
    whole, part = net.predict(some.images), net.predict(some.images[4:21])
    assert torch.equal(whole.logits, net.predict(some.images).logits)
    assert torch.equal(whole.logits[4:21], part.logits)
    assert not torch.equal(whole.logits, oon.predict(some.images).logits)
    found = PGD(0.2, steps=3)(net, some.images, some.labels)
    assert found.images.min() >= 0 and found.images.max() <= 1 and found.success.any()
    assert set(DEFENSES.values()) == {RandomTolerance, InputNoise, InputTransform}


def test_draws_follow_ids(oon, test_digits):
    some = test_digits[:6]
    net = RandomTolerance(LogUniform(1e-5, 1e-1))(oon)
    draw = net.draw(some.ids, 3)
    tolerances = draw.settings.tolerance
    assert isinstance(tolerances, torch.Tensor) and tolerances.unique().numel() == 6
    again, other = net.draw(some.ids[::-1], 3).settings.tolerance, net.draw(some.ids, 4).settings.tolerance
    assert isinstance(again, torch.Tensor) and torch.equal(again.flip(0), tolerances)
    assert isinstance(other, torch.Tensor) and not torch.equal(other, tolerances)


def test_agreement_counts_the_largest_group():
    votes = torch.tensor([[1, 1, 1, 1], [1, 2, 1, 2], [1, 2, 3, 4], [-1, -1, -1, 5], [-1, -1, -1, -1]])
    assert agreement(votes).tolist() == [4, 2, 1, 1, 0]


def test_a_vote_of_v_is_the_first_v_of_a_longer_one(oon, test_digits):
    some = test_digits[:20]
    ballots = ToleranceVote(oon, votes=6).ballots(some.images, some.ids)
    short = ToleranceVote(oon, votes=3)
    assert torch.equal(short.ballots(some.images, some.ids), ballots[:, :3])
    assert torch.equal(short.score(some.images, some.ids), (3 - agreement(ballots[:, :3])).double())
    assert torch.equal(short.accepts(some.images, some.ids, 3), agreement(ballots[:, :3]) >= 3)
    order = [5, 0, 11]
    assert torch.equal(
        short.score(some.images[order], [some.ids[i] for i in order]), short.score(some.images, some.ids)[order]
    )


def test_the_margin_is_most_suspicious_on_the_boundary():
    net = Linear(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2)).eval()
    images = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.5, 0.4]]).view(3, 1, 1, 2)
    score = OnePassMargin(net).fit(images).score(images, ["a", "b", "c"])
    assert score.argsort(descending=True).tolist() == [0, 2, 1]


def test_wrong_use(oon, res):
    for wrong in (
        lambda: LogUniform(0.0, 1.0),
        lambda: LogUniform(1.0, 0.1),
        lambda: InputNoise(-1.0),
        lambda: ToleranceVote(oon, votes=1),
        lambda: RandomTolerance()(res),
    ):
        with pytest.raises(InvalidInput, match="expected"):
            wrong()
