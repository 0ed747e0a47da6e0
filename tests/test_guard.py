"""Attacks on a classifier with a detector beside it."""

from dataclasses import dataclass

import pytest
import torch
from toys import Linear, pictures

from odefend.attacks import APGD, BIM, PGD, CarliniWagner, DeepFool, Guard
from odefend.attacks.guard import WAYS
from odefend.defenses import LogUniform, RandomTolerance
from odefend.detectors import OnePassMargin, ToleranceVote
from odefend.errors import InvalidInput, UnknownName


@dataclass(frozen=True)
class Projection:
    """A detector whose score is linear in the image."""

    direction: torch.Tensor

    def score(self, images, ids):
        return images.flatten(1) @ self.direction


@dataclass(frozen=True)
class Rounded:
    """A detector without a gradient."""

    detector: Projection

    def score(self, images, ids):
        return self.detector.score(images, ids).detach().round()


def linear():
    """A net that looks at pixels 0 and 1 alone, and a detector that looks at 1 and 2."""
    weight = torch.zeros(2, 64, dtype=torch.float64)
    weight[1, 0], weight[1, 1] = 1.0, 1.0
    direction = torch.zeros(64, dtype=torch.float64)
    direction[1], direction[2] = 1.0, 1.0
    return Linear(weight, torch.tensor([0.0, -1.2], dtype=torch.float64)).eval(), Projection(direction)


def images_of(net):
    images = torch.full((6, 1, 8, 8), 0.5, dtype=torch.float64)
    return images, net.predict(images).labels


@pytest.mark.parametrize("way", WAYS)
def test_carlini_wagner_finds_the_nearest_image_that_passes(way):
    """a + b >= 0.2 and b + c <= 0: the nearest solution is a = 2/15, b = 1/15, c = -1/15."""
    net, detector = linear()
    images, labels = images_of(net)
    guard = Guard(detector, threshold=1.0, way=way)
    attack = CarliniWagner(steps=150, binary_search_steps=6, learning_rate=0.01, initial_constant=1.0)
    found = attack(net, images, labels, guard=guard)
    assert found.success.all()
    assert (detector.score(found.images, ()) <= 1.0).all()
    best = (2 / 15) ** 2 + 2 * (1 / 15) ** 2
    # The two gradients' balance costs a little distance; the plain attack's image, a = b = 0.1, is refused.
    assert (found.distance >= best**0.5 * (1 - 1e-6)).all() and (found.distance < 1.05 * best**0.5).all()
    plain = attack(net, images, labels)
    assert plain.success.all() and (detector.score(plain.images, ()) > 1.0).all()
    assert (plain.distance < found.distance).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "attack", [PGD(0.2, steps=30, early_stop=True), BIM(0.2, steps=30), APGD(0.2, steps=30)], ids=repr
)
def test_attacks_in_a_ball_pass_the_detector(attack, way):
    net, detector = linear()
    images, labels = images_of(net)
    found = attack(net, images, labels, guard=Guard(detector, threshold=1.0, scale=0.3, way=way))
    assert found.success.all() and (detector.score(found.images, ()) <= 1.0).all()
    refused = attack(net, images, labels, guard=Guard(detector, threshold=-1.0, way=way))
    assert not refused.success.any(), "no image of the ball has so small a score"


def test_success_is_measured_with_the_detector_itself_whatever_the_source():
    net, detector = linear()
    images, labels = images_of(net)
    hard = Rounded(Projection(10 * detector.direction))
    with pytest.raises(InvalidInput, match="can be differentiated"):
        PGD(0.2)(net, images, labels, guard=Guard(hard, threshold=9.0))
    found = PGD(0.2, steps=30)(net, images, labels, guard=Guard(hard, 9.0, source=hard.detector))
    assert found.success.all() and (hard.score(found.images, ()) <= 9.0).all()


@pytest.mark.parametrize("way", WAYS)
def test_the_ways_are_those_of_their_papers(way):
    """Before the net is fooled a step follows the net, after it the detector, each without the other's part; or the sum."""
    net, detector = linear()
    guard = Guard(detector, threshold=0.5, scale=2.0, way=way)
    image = torch.full((2, 1, 8, 8), 0.5, dtype=torch.float64, requires_grad=True)
    net_gradient, own = (net.weight[1] - net.weight[0]).detach(), -detector.direction / 2
    climb = image.flatten(1) @ net_gradient
    ahead = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    gradient = guard.joined(image, climb, ahead, guard.searched(image, ("a", "b"))).flatten(1)
    if way == "joint":
        torch.testing.assert_close(gradient, (net_gradient + own).expand(2, -1))
    elif way == "selective":
        torch.testing.assert_close(gradient, torch.stack([net_gradient, own]))
    else:
        assert abs(gradient[0] @ own) < 1e-12 and gradient[0] @ net_gradient > 0
        assert abs(gradient[1] @ net_gradient) < 1e-12 and gradient[1] @ own > 0


def test_heights_tell_how_far_an_image_is_on_the_way():
    """Not fooled, less so; fooled and refused, less so; fooled and accepted."""
    climb, ahead = torch.tensor([-9.0, -1.0, 5.0, 1.0, 1.0]), torch.tensor([-3.0, -1.0, 2.0, 1.0, 1.0])
    slack = torch.tensor([9.0, -1.0, -7.0, -1.0, 0.0])
    for way in ("selective", "orthogonal"):
        assert (Guard(linear()[1], 0.5, way=way).height(climb, ahead, slack).diff() > 0).all()
    joint = Guard(linear()[1], 0.5, way="joint").height(climb, ahead, slack)
    assert joint.tolist() == [-9, -2, -2, 0, 1]


def test_the_detectors_here_can_be_differentiated(oon, test_digits):
    some = test_digits[:16]
    vote = ToleranceVote(oon, votes=4, defense=RandomTolerance(LogUniform(1e-3, 10.0)))
    for detector in (OnePassMargin(oon), vote):
        images = some.images.clone().requires_grad_(True)
        score = detector.score(images, some.ids)
        (gradient,) = torch.autograd.grad(score.sum(), images)
        assert (gradient.flatten(1).norm(dim=1) > 0).all()
        with torch.no_grad():
            torch.testing.assert_close(detector.score(some.images, some.ids).to(score), score.detach())
            lower = detector.score((some.images - 0.02 * gradient.sign()).clamp(0, 1), some.ids)
        assert lower.mean() <= score.mean()


def test_an_attacker_who_knows_the_margin_passes_it(res, test_digits):
    some = test_digits[:16]
    detector = OnePassMargin(res)
    with torch.no_grad():
        scores = detector.score(some.images, some.ids)
    guard = Guard(detector, threshold=float(scores.quantile(0.8)), scale=float(scores.std()))
    attack = PGD(0.3, steps=30, loss="margin")
    plain = attack(res, some.images, some.labels, ids=some.ids)
    knowing = attack(res, some.images, some.labels, ids=some.ids, guard=guard)
    with torch.no_grad():
        passed = plain.success & (detector.score(plain.images, some.ids) <= guard.threshold)
    assert knowing.success.sum() > passed.sum() + 3
    assert torch.equal(knowing.success, knowing.success & res.predict(knowing.images).fooled(some.labels))


def test_wrong_use(oon, test_digits):
    some = test_digits[:2]
    with pytest.raises(InvalidInput, match="positive"):
        Guard(OnePassMargin(oon), 0.0, scale=0.0)
    with pytest.raises(UnknownName, match="orthogonal"):
        Guard(OnePassMargin(oon), 0.0, way="ortogonal")
    with pytest.raises(InvalidInput, match="expected none"):
        DeepFool()(oon, some.images, some.labels, guard=Guard(OnePassMargin(oon), 0.0))


@pytest.mark.parametrize("way", ["selective", "joint"])
def test_a_guard_that_refuses_nothing_changes_nothing(way):
    net, detector = linear()
    images = 0.3 + 0.4 * pictures(6)
    labels = net.predict(images).labels
    easy = Guard(detector, threshold=1e9, way=way)
    torch.testing.assert_close(
        PGD(0.2, steps=5)(net, images, labels, guard=easy).images, PGD(0.2, steps=5)(net, images, labels).images
    )
