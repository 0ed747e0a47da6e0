"""Attacks that ask for answers only: known optima, what no gradient reaches, and the same in any batch."""

import pytest
import torch
from test_attacks import linear
from toys import Linear, pictures

from odefend.attacks import SPSA, AutoAttack, Expectation, Guard, Square
from odefend.attacks.square import _bumps
from odefend.defenses import InputNoise
from odefend.errors import InvalidInput
from odefend.models import Classifier
from odefend.models.classifier import no_work
from odefend.norms import L2, LINF, RMS, dual

ASKING = [Square(0.1, queries=300), Square(0.8, L2, queries=600), SPSA(0.1, steps=20), SPSA(0.8, L2, steps=40)]


class Stairs(Classifier):
    """A linear net whose logits are rounded down to steps: its gradient is zero almost everywhere."""

    def __init__(self, net, step):
        super().__init__(net.in_channels, net.classes)
        self.net, self.step = net, step

    def classify(self, images):
        logits = self.net.classify(images).logits
        return no_work(
            logits + ((logits / self.step).floor() * self.step - logits).detach() - (logits - logits.detach())
        )


@pytest.mark.parametrize("attack", ASKING, ids=repr)
def test_they_come_near_the_known_optimum_of_a_linear_net(attack):
    """Two classes that need more than the ball gives, so that the search goes on to its end."""
    net, images = linear(2, seed=5), 0.4 + 0.2 * pictures(4)
    net.bias.data[0] += 20.0
    labels = net.predict(images).labels
    slope = (net.weight[1 - labels] - net.weight[labels]).detach().view_as(images)
    clean, most = margin_of(net, images, labels), attack.epsilon * dual(attack.norm, slope)
    found = attack(net, images, labels)
    share = (margin_of(net, found.images, labels) - clean) / most
    # Bumps fit weights that are noise less well than single pixels do.
    enough = 0.55 if isinstance(attack, Square) and attack.norm == L2 else 0.75
    assert (share <= 1 + 1e-9).all() and (share > enough).all() and not found.success.any()
    assert (found.gradient_calls == 0).all()


def margin_of(net, images, labels):
    with torch.no_grad():
        logits = net.predict(images).logits
    return (logits.gather(1, 1 - labels[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


@pytest.mark.parametrize("attack", ASKING, ids=repr)
def test_a_gradient_that_is_hidden_hides_nothing(attack):
    net, images = linear(3, seed=1), 0.4 + 0.2 * pictures(6, seed=2)
    hidden = Stairs(net, 0.05).eval()
    labels = hidden.predict(images).labels
    found = attack(hidden, images, labels)
    assert found.success.sum() >= 4


@pytest.mark.parametrize(
    "attack",
    [Square(0.1, queries=130), Square(0.6, L2, queries=20), SPSA(0.1, steps=2, samples=4)],
    ids=repr,
)
def test_order_and_batch_do_not_matter(attack, res, test_digits):
    some, order = test_digits[:40], [13, 2, 7]
    together = attack(res, some.images, some.labels, ids=some.ids)
    part = test_digits[order]
    alone = attack(res, part.images, part.labels, ids=part.ids)
    assert torch.equal(alone.images, together.images[order])
    assert torch.equal(alone.forward_calls, together.forward_calls[order])
    assert torch.equal(alone.history, together.history[order])
    other = attack(res, some.images, some.labels, ids=some.ids, seed=1)
    assert not torch.equal(other.images, together.images)


@pytest.mark.parametrize(("norm", "epsilon"), [(LINF, 0.2), (L2, 1.2)], ids=str)
def test_square_breaks_about_what_pyautoattacks_does(res, test_digits, norm, epsilon):
    some = test_digits[:150]
    own = Square(epsilon, norm, queries=200)(res, some.images, some.labels)
    theirs = AutoAttack(epsilon, norm, attacks=("square",), queries=200)(res, some.images, some.labels)
    assert 20 < theirs.success.sum() < 140, "the test can tell"
    assert own.success.sum() >= theirs.success.sum() - 8
    assert (own.forward_calls <= 203).all() and (own.forward_calls[own.success] < 203).any()


def test_squares_shrink_with_the_queries():
    attack = Square(0.1, queries=1000)
    assert attack.side(0, 28, 28) == 25 and attack.side(999, 28, 28) == 1
    sides = [attack.side(query, 28, 28) for query in range(1000)]
    assert sides == sorted(sides, reverse=True)
    assert [Square(0.1, queries=10).side(query, 28, 28) for query in (0, 9)] == [25, 1], "a short one has all of them"
    assert {Square(0.1, L2, queries=1000).side(query, 28, 28) % 2 for query in range(1000)} == {1}
    bumps = _bumps(9)
    assert bumps[:4].amin() > 0 and bumps[4:].amax() < 0
    torch.testing.assert_close(bumps[4:].norm(), torch.tensor(1.0))


def test_square_in_l2_uses_the_whole_ball():
    net, images = linear(2, seed=5), torch.full((4, 3, 8, 8), 0.5, dtype=torch.float64)
    net = Linear(torch.randn(2, 192, dtype=torch.float64), torch.tensor([50.0, 0.0], dtype=torch.float64), 3).eval()
    found = Square(0.5, L2, queries=150)(net, images, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(found.distance, torch.full_like(found.distance, 0.5), rtol=1e-6, atol=0)


@pytest.mark.parametrize("attack", [Square(0.2, queries=200), SPSA(0.2, steps=40, delta=0.05)], ids=repr)
def test_they_pass_a_detector_without_its_gradient(attack):
    """a + b >= 0.2 and b + c <= 0, the detector's score being rounded up to hundredths."""
    weight, direction = torch.zeros(2, 64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    weight[1, :2], direction[1:3] = 1.0, 1.0
    net = Linear(weight, torch.tensor([0.0, -1.2], dtype=torch.float64)).eval()

    class Rounded:
        def score(self, images, ids):
            return ((images.flatten(1) @ direction).detach() * 100 - 1e-6).ceil() / 100

    images = torch.full((5, 1, 8, 8), 0.5, dtype=torch.float64)
    labels = net.predict(images).labels
    guard = Guard(Rounded(), threshold=1.0)
    found = attack(net, images, labels, guard=guard)
    assert found.success.all() and (guard.detector.score(found.images, ()) <= 1.0).all()


@pytest.mark.parametrize("attack", [Square(0.1, queries=100), SPSA(0.1, steps=10, samples=32)], ids=repr)
def test_they_work_on_a_random_defense(attack, res, test_digits):
    some = test_digits[:30]
    draws = [InputNoise(0.1)(res).draw(some.ids, number) for number in range(4)]
    found = attack(Expectation(draws), some.images, some.labels, ids=some.ids)
    fresh = Expectation([InputNoise(0.1, seed=1)(res).draw(some.ids, number) for number in range(4)])
    broken = fresh.predict(found.images).fooled(some.labels)
    assert found.success.any() and broken.sum() > fresh.predict(some.images).fooled(some.labels).sum()


@pytest.mark.parametrize(
    "attack", [Square(0.0, queries=5), Square(0.0, L2, queries=5), SPSA(0.0, steps=2, samples=4)], ids=repr
)
def test_no_budget_no_change(attack, res, test_digits):
    some = test_digits[:20]
    found = attack(res, some.images, some.labels)
    assert torch.equal(found.images, some.images) and not found.success.any()


def test_wrong_use():
    with pytest.raises(InvalidInput, match="norm: expected LINF or L2, got rms"):
        Square(0.1, RMS)
    for wrong in (
        lambda: Square(0.1, queries=0),
        lambda: Square(0.1, p_init=1.5),
        lambda: SPSA(0.1, steps=0),
        lambda: SPSA(0.1, samples=3),
        lambda: SPSA(0.1, delta=0.0),
        lambda: SPSA(0.1, learning_rate=-1.0),
    ):
        with pytest.raises(InvalidInput, match="expected a"):
            wrong()
