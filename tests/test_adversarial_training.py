"""Training against attacks: what is learned from lies in the ball and uphill, and nets come out that withstand more."""

import pytest
import torch
import torch.nn.functional as F
from toys import Linear, pictures

import odefend
from odefend.attacks import PGD
from odefend.training import read_recipe, train
from odefend.training.adversarial import attacked, divergence
from odefend.training.recipe import Adversarial


@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_the_images_lie_in_the_ball_and_uphill(beta, oon, test_digits):
    some, how = test_digits[:16], Adversarial(epsilon=0.1, steps=4, beta=beta)
    draws = torch.rand(some.images.shape, generator=torch.Generator().manual_seed(0))
    moved = attacked(oon, some.images, some.labels, how, 0.1, draws)
    assert (moved - some.images).abs().max() <= 0.1 + 1e-6 and moved.min() >= 0 and moved.max() <= 1
    assert not moved.requires_grad and not oon.training
    with torch.no_grad():
        start = (some.images + 0.1 * (2 * draws - 1)).clamp(0, 1)
        clean = oon(some.images)
        for loss in (lambda said: F.cross_entropy(said, some.labels), lambda said: divergence(clean.softmax(1), said)):
            assert loss(oon(moved)) > loss(oon(start))


def test_a_linear_net_is_attacked_at_the_corner_of_the_ball():
    """Many steps end where the gradient's signs point, and one of 1.25 radii at least a quarter of the way there."""
    weight = torch.tensor([[1.0] * 16, [-1.0] * 16], dtype=torch.float64)
    net, images = Linear(weight, torch.zeros(2, dtype=torch.float64)), pictures(4, size=4) * 0.2 + 0.4
    labels = torch.zeros(4, dtype=torch.long)
    for steps in (1, 10):
        how = Adversarial(epsilon=0.1, steps=steps)
        moved = attacked(net, images, labels, how, 0.1, torch.rand(images.shape))
        inside = (images - moved) / 0.1
        assert (inside > 0.25 - 1e-6).all() if steps == 1 else torch.allclose(inside, torch.ones_like(inside))


def test_the_radius_grows_to_its_full_size():
    how = Adversarial(epsilon=0.3, ramp=4)
    assert [how.radius(epoch) for epoch in (0, 2, 4, 9)] == [0.0, 0.15, 0.3, 0.3]
    assert Adversarial(epsilon=0.3).radius(0) == 0.3
    assert Adversarial(epsilon=0.3, steps=1).length == 1.25 and Adversarial(epsilon=0.3, steps=5).length == 0.5


SMALL = {"options": {"in_channels": 1, "width": 16, "classes": 10}, "epochs": 20}
PLAIN = 0.255
"""What a net of this recipe without attacks withstands, of the same images."""


@pytest.mark.parametrize(
    "how",
    [
        {"epsilon": 0.15, "steps": 3},
        pytest.param({"epsilon": 0.15, "steps": 3, "beta": 6.0}, marks=pytest.mark.slow),
        pytest.param(None, marks=pytest.mark.slow),
    ],
    ids=["pgd", "trades", "plain"],
)
def test_a_net_trained_against_attacks_withstands_more(how, tmp_path):
    """In a ball of .15, by an attack of more steps than it was trained against."""
    test = odefend.digits("test")[:200]
    net = odefend.load(train(read_recipe("digits-res", overrides=SMALL | {"adversarial": how}), tmp_path))
    found = PGD(0.15, steps=5)(net, test.images, test.labels, ids=test.ids)
    withstood = 1 - (found.success | found.initially_wrong).double().mean().item()
    assert withstood > PLAIN + 0.07 if how else abs(withstood - PLAIN) < 0.06
