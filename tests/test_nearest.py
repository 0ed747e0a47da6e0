"""Attacks of smallest norm: known optima, whatever the box and the number of classes, and the same in any batch."""

import pytest
import torch
from test_attacks import boundary_distance, linear
from toys import Projection, pictures, same_in_any_batch, watched

from odefend.attacks import DDN, FMN, DeepFool, Expectation, FoolboxAttack, Guard, MinimumNorm, SuperDeepFool
from odefend.attacks.problem import Problem
from odefend.defenses import InputNoise
from odefend.errors import InvalidInput, UnknownName
from odefend.norms import L2, LINF, RMS
from odefend.progress import Silent

NEAREST = [MinimumNorm(), MinimumNorm(LINF), DDN(), FMN(), FMN(LINF), SuperDeepFool(overshoot=1e-4)]
FOLLOWING = [attack for attack in NEAREST if not isinstance(attack, SuperDeepFool)]
"""Those that follow a loss, and so know guards and expectations."""


def boxed_distance(net, images, labels, norm):
    """The exact distance to the boundary of two classes inside the box: pixels go as far as they can along w, or its sign."""
    slope = (net.weight[1 - labels] - net.weight[labels]).detach()
    flat, needed = images.flatten(1), -(net(images) * torch.tensor([-1.0, 1.0])).sum(1) * (1 - 2 * labels)
    needed = needed.detach()
    way = slope if norm == L2 else slope.sign()
    low, high = torch.zeros(len(images), 1).double(), torch.full((len(images), 1), 1e3).double()
    for _ in range(100):
        middle = (low + high) / 2
        delta = (flat + middle * way).clamp(0, 1) - flat
        enough = (delta * slope).sum(1, keepdim=True) >= needed[:, None]
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return norm.size(((flat + high * way).clamp(0, 1) - flat).view_as(images))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("attack", NEAREST, ids=repr)
def test_they_find_the_known_distance_of_a_linear_net(attack, classes):
    net, images = linear(classes, seed=1), 0.4 + 0.2 * pictures(8, seed=2)
    labels = net.predict(images).labels
    found = attack(net, images, labels)
    exact = boundary_distance(net, images, labels, dual=1 if attack.norm == LINF else 2)
    assert found.success.all() and (found.distance / exact).min() > 1 - 1e-9
    assert (found.distance / exact).max() < 1.001


@pytest.mark.parametrize("attack", FOLLOWING, ids=repr)
def test_they_find_it_where_the_box_binds(attack):
    net, images = linear(2, seed=4), pictures(8, seed=5).round(decimals=1)
    net.bias.data[0] += 3.0
    labels = net.predict(images).labels
    exact, free = boxed_distance(net, images, labels, attack.norm), boundary_distance(net, images, labels)
    found = attack(net, images, labels)
    assert found.success.all() and (found.distance / exact).min() > 1 - 1e-9
    assert (found.distance / exact).max() < 1.001
    assert attack.norm == LINF or (exact > 1.01 * free).any(), "the box binds"


@pytest.mark.parametrize(
    "attack",
    [
        DDN(steps=3, closing=2),
        FMN(LINF, steps=3, closing=2),
        SuperDeepFool(steps=4, candidates=3, closing=2),
        MinimumNorm(steps=5, candidates=2, closing=2),
    ],
    ids=repr,
)
def test_order_and_batch_do_not_matter(attack, oon, test_digits):
    same_in_any_batch(attack, oon, test_digits)


def test_ddn_is_foolboxs(res, test_digits):
    some = test_digits[:8]
    own = DDN(steps=20, closing=0)(res, some.images, some.labels)
    theirs = FoolboxAttack("DDNAttack", {"steps": 20})(res, some.images, some.labels)
    # Foolbox does not look at the last step's image.
    assert (own.distance <= 1.0001 * theirs.distance).all() and (own.distance > 0.95 * theirs.distance).all()
    assert torch.isclose(own.distance, theirs.distance, rtol=1e-3).sum() >= 4


def test_the_last_search_is_judged_by_the_net_itself(res, test_digits):
    some = test_digits[:8]
    plain, closed = (DDN(steps=10, closing=n)(res, some.images, some.labels) for n in (0, 10))
    assert (closed.distance <= plain.distance).all() and (closed.distance < 0.999 * plain.distance).any()
    assert torch.equal(closed.gradient_calls, plain.gradient_calls)
    assert (closed.forward_calls - plain.forward_calls == 10)[plain.success].all()
    clean, nearer = some.images[closed.success], closed.images[closed.success]
    assert not res.predict(clean + 0.998 * (nearer - clean)).fooled(some.labels[closed.success]).all()


def test_superdeepfool_is_nearer_than_deepfool(res, test_digits):
    some = test_digits[:12]
    plain, turned = (attack(res, some.images, some.labels) for attack in (DeepFool(), SuperDeepFool()))
    assert turned.success.all() and turned.distance.mean() < 0.97 * plain.distance.mean()


def test_minimum_norm_is_nearer_than_ddn_in_as_many_gradients(res, test_digits):
    some = test_digits[:32]
    best, ddn = (attack(res, some.images, some.labels) for attack in (MinimumNorm(), DDN()))
    assert (best.success | best.initially_wrong).all() and (best.gradient_calls <= 100).all()
    assert best.distance.mean() < 0.99 * ddn.distance.mean() and (best.distance <= 1.05 * ddn.distance).all()
    rms = MinimumNorm(RMS)(res, some.images[:4], some.labels[:4])
    torch.testing.assert_close(rms.distance, best.distance[:4] / 8, rtol=1e-3, atol=0)


def test_ways_to_classes_leave_until_one_is_left():
    attack = MinimumNorm()
    assert attack.rounds(9) == [(9, 4), (4, 5), (2, 9), (1, 26)]
    assert attack.rounds(1) == [(1, 44)] and sum(ways * steps for ways, steps in attack.rounds(9)) == 100
    for steps in range(1, 20):
        assert sum(steps for _, steps in MinimumNorm(steps=steps).rounds(9)) == steps
    net, images = linear(5, seed=1), 0.4 + 0.2 * pictures(3, seed=2)
    labels = net.predict(images).labels
    problem = Problem(net, None, images, labels, ["a", "b", "c"], 0, Silent())
    classes = problem.likeliest(torch.arange(3), 2)
    assert torch.equal(classes, net(images).topk(3).indices[:, 1:])
    kept = images[labels != 4]
    found = MinimumNorm(target=4)(net, kept, labels[labels != 4])
    assert (net.predict(found.images).labels == 4).all() and (found.gradient_calls == 44).all()


def test_many_ways_of_one_image_are_counted_and_kept_apart(res, test_digits):
    """More images than one batch holds, each with several ways, are the same as a few."""
    many = test_digits[:300]
    attack = MinimumNorm(steps=2, candidates=2, closing=0)
    together = attack(res, many.images, many.labels, ids=many.ids)
    some = test_digits[280:300]
    alone = attack(res, some.images, some.labels, ids=some.ids)
    assert torch.equal(alone.images, together.images[280:]) and torch.equal(alone.history, together.history[280:])
    assert (alone.gradient_calls[~alone.initially_wrong] == 3).all()


@pytest.mark.parametrize("attack", FOLLOWING, ids=repr)
def test_they_pass_a_detector_and_average_over_draws(attack):
    """a + b >= 0.2 and b + c <= 0: the nearest is a = 2/15, b = 1/15, c = -1/15 in L2, and a = .1, b = .1, c = -.1 in LINF."""
    net, images = watched()
    labels = net.predict(images).labels
    found = attack(net, images, labels, guard=Guard(Projection(), threshold=1.0))
    best = 0.1 if attack.norm == LINF else ((2 / 15) ** 2 + 2 * (1 / 15) ** 2) ** 0.5
    assert found.success.all() and (found.distance >= best * (1 - 1e-6)).all()
    assert (found.distance < 1.1 * best).all()
    ids = ["a", "b", "c"]
    draws = [InputNoise(0.05)(net).draw(ids, number) for number in range(8)]
    mean = Expectation(draws)
    over = attack(mean, images, labels, ids=ids)
    assert over.success.all() and mean.predict(over.images).fooled(labels).all()


def test_wrong_use():
    for make in (lambda: DDN(LINF), lambda: SuperDeepFool(LINF), lambda: FMN(RMS)):
        with pytest.raises(InvalidInput, match="norm: expected L2"):
            make()
    with pytest.raises(InvalidInput, match=r"gamma: expected a number in \(0, 1\)"):
        FMN(gamma=1.0)
    with pytest.raises(InvalidInput, match="closing"):
        DDN(closing=-1)
    with pytest.raises(UnknownName, match="margin"):
        DDN(loss="margins")
    with pytest.raises(InvalidInput, match="steps"):
        FMN(steps=0)


def test_a_minimum_norm_search_says_what_it_costs():
    """As many gradients as its ways take, nine or two classes."""
    assert int(MinimumNorm().cost) == 104 and int(MinimumNorm(candidates=1).cost) == 48
