"""Training against attacks: what is learned from lies in the ball and uphill, and nets come out that withstand more."""

import copy

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from toys import Linear, pictures

import odefend
from odefend.attacks import PGD
from odefend.models.convolutional import resnet14
from odefend.training import read_recipe, train
from odefend.training.adversarial import attacked, divergence
from odefend.training.loop import Training
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
        for loss in (lambda said: F.cross_entropy(said, some.labels), lambda said: divergence(clean, said)):
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


@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_the_net_is_attacked_as_it_will_be_asked_and_left_as_it_was(beta):
    """In evaluation mode, without a trace in its running statistics, though it comes in training mode."""
    torch.manual_seed(0)
    net, images, labels = resnet14(1, width=4), pictures(6, size=32, dtype=torch.float32), torch.arange(6)
    how, draws = Adversarial(epsilon=0.1, steps=2, beta=beta), torch.rand(6, 1, 32, 32)
    expected = attacked(net.eval(), images, labels, how, 0.1, draws)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert torch.equal(attacked(net.train(), images, labels, how, 0.1, draws), expected)
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    doubled = attacked(net.double(), images, labels, how, 0.1, draws)
    assert doubled.dtype == torch.float64


def test_trades_and_cross_entropy_climb_apart():
    """From a clean image that is classified wrongly, one away from the answer, the other away from the label."""
    torch.manual_seed(0)
    net, images = resnet14(1, width=4).eval(), pictures(6, size=32, dtype=torch.float32)
    least, draws = net(images).argmin(1), torch.rand(6, 1, 32, 32)
    by_label, by_answer = (
        attacked(net, images, least, Adversarial(epsilon=0.1, steps=5, beta=beta), 0.1, draws) for beta in (0.0, 3.0)
    )
    clean = net(images)
    assert divergence(clean, net(by_answer)) > divergence(clean, net(by_label))
    assert F.cross_entropy(net(by_label), least) > F.cross_entropy(net(by_answer), least)


def test_the_divergence_has_a_gradient_where_a_probability_is_nothing():
    clean = torch.tensor([[0.0, 300.0, 0.0]], requires_grad=True)
    divergence(clean, torch.tensor([[1.0, 0.0, 0.0]])).backward()
    assert clean.grad is not None and torch.isfinite(clean.grad).all()


def test_the_loss_is_that_of_clean_and_moved_images(tmp_path, monkeypatch):
    """TRADES: cross-entropy of the clean ones, and beta times the divergence to those that the attack made."""
    recipe = read_recipe(
        "digits-res", overrides={"images": 32, "adversarial": {"epsilon": 0.1, "steps": 1, "beta": 2.0}}
    )
    seen = []

    def noted(*given):
        seen.append((given[1], attacked(*given)))
        return seen[-1][1]

    monkeypatch.setattr("odefend.training.loop.attacked", noted)
    training = Training(recipe, Fabric(accelerator="cpu", devices=1), None)
    for module in training.net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    net = copy.deepcopy(training.net).train()
    found = training.learn()
    assert training.order is not None
    (images, moved), labels = seen[0], training.data.labels[training.order[1][0]]
    clean, there = net(images), net(moved)
    expected = F.cross_entropy(clean, labels, reduction="sum") + 2.0 * divergence(clean, there)
    assert found == pytest.approx(expected.item(), rel=1e-4)


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
