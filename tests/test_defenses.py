"""Random tolerance, noise and transforms: deterministic per image, and open to every attack."""

import pytest
import torch

from odefend.attacks import PGD
from odefend.defenses import DEFENSES, InputNoise, InputTransform, LogUniform, RandomTolerance
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


def test_wrong_use(oon, res):
    for wrong in (
        lambda: LogUniform(0.0, 1.0),
        lambda: LogUniform(1.0, 0.1),
        lambda: InputNoise(-1.0),
        lambda: RandomTolerance()(res),
    ):
        with pytest.raises(InvalidInput, match="expected"):
            wrong()
