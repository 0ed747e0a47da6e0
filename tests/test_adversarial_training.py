"""Training against attacks and under noise: what is learned from, and nets come out that withstand more."""

import copy

import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from toys import Linear, pictures

import odefend
from odefend.attacks import PGD
from odefend.defenses import Smoothing
from odefend.errors import InvalidInput
from odefend.models.convolutional import resnet14
from odefend.rng import normal
from odefend.training import read_recipe, train
from odefend.training.adversarial import attacked, divergence, unsure
from odefend.training.loop import Training
from odefend.training.noise import UnderNoise
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


@pytest.mark.parametrize("way", ["beta", "ccat"])
def test_the_loss_is_that_of_clean_and_moved_images(way, monkeypatch):
    """Cross-entropy of the clean ones, and for those that the attack made, TRADES: beta times the divergence of the answers; CCAT:
    cross-entropy with a target that is the surer the nearer they are. The ball grows from step to step."""
    how = {"epsilon": 0.1, "steps": 1, "ramp": 1, way: 2.0}
    recipe = read_recipe("digits-res", overrides={"images": 64, "batch_size": 32, "adversarial": how})
    seen = []

    def noted(*given):
        seen.append((given[1], attacked(*given), given[4]))
        return seen[-1][1]

    monkeypatch.setattr("odefend.training.loop.attacked", noted)
    training = Training(recipe, Fabric(accelerator="cpu", devices=1), None)
    for module in training.net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    training.learn()
    net = copy.deepcopy(training.net).train()
    found = training.learn()
    assert training.order is not None
    (images, moved, radius), labels = seen[1], training.data.labels[training.order[1][1]]
    assert radius == pytest.approx(0.05) and seen[0][2] == 0, "half of an epoch, and none, had passed"
    clean, there = net(images), net(moved)
    more = 2.0 * divergence(clean, there)
    if way == "ccat":
        share = (1 - (moved - images).abs().amax((1, 2, 3)) / 0.1) ** 2
        target = share[:, None] * F.one_hot(labels, 10) + (1 - share[:, None]) / 10
        assert share.min() < 0.6 and share.max() <= 1
        more = -(target * there.log_softmax(1)).sum()
    expected = F.cross_entropy(clean, labels, reduction="sum") + more
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_confidence_is_learned_from_balls_of_all_sizes(oon, test_digits):
    """Uphill is where a wrong class grows likely, however sure the net is of the right one."""
    some, how = test_digits[:16], Adversarial(epsilon=0.2, steps=4, ccat=10.0)
    draws = torch.rand(some.images.shape, generator=torch.Generator().manual_seed(0))
    moved = attacked(oon, some.images, some.labels, how, 0.2, draws)
    far, radius = (moved - some.images).abs().flatten(1).amax(1), 0.2 * draws[:, 0, 0, 0]
    assert (far <= radius + 1e-6).all() and (far > 0.9 * radius).all()
    with torch.no_grad():
        before, after = (
            oon(images).softmax(1).scatter(1, some.labels[:, None], 0.0) for images in (some.images, moved)
        )
    assert (after.amax(1) >= before.amax(1) - 1e-6).all() and after.amax(1).mean() > before.amax(1).mean()

    # Of 64 images in balls of full size, as those of an attack that climbs the cross-entropy.
    some = test_digits[:64]
    draws = torch.rand(some.images.shape, generator=torch.Generator().manual_seed(0))
    draws[:, :1, :1, :1] = 1
    both = (how, how.model_copy(update={"ccat": 0.0}))
    ours, other = (attacked(oon, some.images, some.labels, one, 0.2, draws) for one in both)
    with torch.no_grad():
        sure, less = (oon(one).softmax(1).scatter(1, some.labels[:, None], 0.0).amax(1).mean() for one in (ours, other))
    assert sure > less


def test_how_sure_to_be():
    """Of clean images as cross-entropy has it; of the farthest, of nothing."""
    logits, labels = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], requires_grad=True), torch.tensor([0, 2])
    entropy = F.cross_entropy(logits, labels, reduction="sum")
    assert unsure(logits, labels, torch.ones(2)).item() == pytest.approx(entropy.item())
    (slope,) = torch.autograd.grad(unsure(logits, labels, torch.zeros(2)), logits)
    torch.testing.assert_close(slope, logits.softmax(1).detach() - 1 / 3)
    half = 0.5 * (entropy + unsure(logits, labels, torch.zeros(2)))
    assert unsure(logits, labels, torch.full((2,), 0.5)).item() == pytest.approx(half.item())


@pytest.mark.parametrize("where", ["input", "state"])
def test_the_noise_is_that_which_certificates_add(where, oon, test_digits):
    """Not clipped, in the image or in the state: the same logits as of a draw of `Smoothing` with this noise."""
    some, smoothing = test_digits[:16], Smoothing(0.4, where=where)
    noisy = UnderNoise(oon, where)
    shape = noisy.shape(some.images)
    noise = 0.4 * normal(smoothing.seed, some.ids, "smoothing", 3, shape)
    with torch.no_grad():
        expected = smoothing(oon).draw(some.ids, 3).predict(some.images).logits
        torch.testing.assert_close(noisy(some.images, noise.float()), expected, rtol=1e-3, atol=1e-3)
    assert (some.images + noise).min() < 0 if where == "input" else shape == tuple(oon.stem(some.images).shape[1:])


def test_noise_is_fresh_and_of_its_size(monkeypatch):
    recipe, seen = read_recipe("digits-res", overrides={"images": 64, "noise": {"sigma": 0.3}}), []
    forward = UnderNoise.forward
    monkeypatch.setattr(
        UnderNoise, "forward", lambda self, images, noise: seen.append(noise) or forward(self, images, noise)
    )
    for _ in range(2):
        training = Training(recipe, Fabric(accelerator="cpu", devices=1), None)
        losses = [training.learn() for _ in range(2)]
        assert all(loss > 0 for loss in losses)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3]) and not torch.equal(seen[0], seen[1])
    assert seen[0].shape == (32, 1, 8, 8) and seen[0].std().item() == pytest.approx(0.3, rel=0.1)


def test_a_training_begins_from_a_trained_net(tmp_path, res):
    quick = {"learning_rate": 1e-9, "epochs": 1, "images": 64}
    found = odefend.load(train(read_recipe("digits-res", overrides=quick | {"begin": "digits-res"}), tmp_path))
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value, res.state_dict()[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(
        InvalidInput, match="begin: expected a trained net of the same model and options, got digits-oon"
    ):
        train(read_recipe("digits-res", overrides=quick | {"begin": "digits-oon", "name": "other"}), tmp_path)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "digits-res",
            {"adversarial": {"epsilon": 0.1}, "noise": {"sigma": 0.1}},
            "noise: expected none beside adversarial",
        ),
        ("digits-res", {"adversarial": {"epsilon": 0.1, "beta": 1.0, "ccat": 10.0}}, "not both"),
        ("digits-autoencoder", {"noise": {"sigma": 0.1}}, "noise: expected none"),
        ("digits-autoencoder", {"begin": "digits-oon"}, "begin: expected none"),
    ],
)
def test_what_does_not_go_together(name, overrides, message):
    with pytest.raises(InvalidInput, match=message):
        read_recipe(name, overrides=overrides)


def test_noise_in_the_state_needs_a_stem(res):
    with pytest.raises(InvalidInput, match="expected a net with a stem for noise in the state, got Linear"):
        UnderNoise(Linear(torch.zeros(2, 16), torch.zeros(2)), "state")


def test_the_radius_grows_to_its_full_size():
    how = Adversarial(epsilon=0.3, ramp=4)
    assert [how.radius(epoch) for epoch in (0, 2, 4, 9)] == [0.0, 0.15, 0.3, 0.3]
    assert Adversarial(epsilon=0.3).radius(0) == 0.3
    lengths = {steps: Adversarial(epsilon=0.3, steps=steps).length for steps in (1, 3, 5, 10)}
    assert lengths == {1: 1.25, 3: 0.5, 5: 0.5, 10: 0.25}


SMALL = {"options": {"in_channels": 1, "width": 16, "classes": 10}, "epochs": 20}


@pytest.mark.parametrize("how", [{}, pytest.param({"beta": 6.0}, marks=pytest.mark.slow)], ids=["pgd", "trades"])
def test_a_net_trained_against_attacks_withstands_more(how, tmp_path):
    """In a ball of .15, by an attack of more steps than it was trained against."""
    test, withstood = odefend.digits("test")[:200], []
    for adversarial in (None, {"epsilon": 0.15, "steps": 3, **how}):
        recipe = read_recipe("digits-res", overrides=SMALL | {"adversarial": adversarial})
        net = odefend.load(train(recipe, tmp_path / str(adversarial is None)))
        found = PGD(0.15, steps=5)(net, test.images, test.labels, ids=test.ids)
        withstood.append(1 - (found.success | found.initially_wrong).double().mean().item())
    assert withstood[1] > withstood[0] + 0.07


@pytest.mark.slow
def test_a_net_trained_under_noise_is_certified_farther(tmp_path):
    """Beside the same recipe without: more images right and certified within .2."""
    test, smoothing, certified = odefend.digits("test")[:100], Smoothing(0.25), []
    for noise in (None, {"sigma": 0.25}):
        net = odefend.load(train(read_recipe("digits-res", overrides={"noise": noise}), tmp_path / str(noise is None)))
        found = smoothing.certify(net, test.images, test.ids, n0=20, n=200)
        certified.append(found.holds(test.labels, 0.2).double().mean().item())
    assert certified[1] > certified[0] + 0.03
