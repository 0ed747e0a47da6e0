"""The worst case over a suite: every image is attacked until one part breaks it, and the suite is the same everywhere."""

import pytest
import torch
from test_attacks import boundary_distance, linear
from toys import Projection, pictures, watched

import odefend
from odefend.attacks import APGD, PGD, Guard, MinimumNorm, Square, WorstCase, named_attack
from odefend.attacks.worst_case import SIZES
from odefend.errors import InvalidInput, UnknownName
from odefend.models import Classifier
from odefend.norms import L2, LINF, RMS


def test_the_suite_is_fixed_and_told():
    standard = WorstCase(0.1)
    attacks = [attack for attack, _ in standard.suite(10)]
    ce, targeted, nearest, *transfer, square = attacks
    assert ce == APGD(0.1, steps=100) and targeted == APGD(0.1, steps=100, loss="margin", targets=9)
    assert nearest == MinimumNorm(LINF) and square == Square(0.1, queries=5000)
    assert [along for _, along in standard.suite(10)] == [False, False, False, True, True, False]
    assert transfer == [ce, APGD(0.1, steps=100, loss="margin")]
    assert standard.name == "WorstCase (standard)" and "100 steps" in standard.record()["suite"]
    assert "5000 queries" in standard.record()["suite"] and standard.record()["size"] == "standard"
    assert WorstCase(0.1, size="quick").cost < standard.cost / 5 and set(SIZES) == {"standard", "quick"}
    assert named_attack("worst-case", {"epsilon": 0.1, "size": "quick"}) == odefend.WorstCase(0.1, size="quick")


@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (3, 2), (10, 9), (100, 9)])
def test_the_suite_fits_the_number_of_classes(classes, targets):
    assert WorstCase(0.1).suite(classes)[1][0] == APGD(0.1, steps=100, loss="margin", targets=targets)
    aimed = [attack for attack, _ in WorstCase(0.1, target=1).suite(classes)]
    assert all(attack.target == 1 for attack in aimed) and aimed[1] == APGD(0.1, steps=100, loss="margin", target=1)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("norm", [LINF, L2], ids=str)
def test_it_breaks_what_can_be_broken_and_nothing_else(norm, classes):
    """The images of a linear net whose distance to the boundary is less than the radius, far from the box's edge."""
    net, images = linear(classes, seed=1), 0.4 + 0.2 * pictures(16, seed=2)
    labels = net.predict(images).labels
    exact = boundary_distance(net, images, labels, dual=1 if norm == LINF else 2)
    epsilon = exact.median().item() * 1.0001
    found = WorstCase(epsilon, norm, size="quick")(net, images, labels)
    assert torch.equal(found.success, exact < epsilon) and 4 < found.success.sum() < 12


def test_parts_follow_one_another_on_what_is_left(res, test_digits):
    some = test_digits[:60]
    found = WorstCase(0.1, size="quick")(res, some.images, some.labels, ids=some.ids)
    first = APGD(0.1, steps=20)(res, some.images, some.labels, ids=some.ids)
    assert found.history.shape[1] == 4
    # Broken by the first part: its very images and calls, but for the answer that notes it.
    broken = first.success
    assert torch.equal(found.history[:, 0].isfinite(), broken) and torch.equal(
        found.images[broken], first.images[broken]
    )
    assert torch.equal(found.gradient_calls[broken], first.gradient_calls[broken])
    assert torch.equal(found.history[:, -1].isfinite(), found.success)
    left = ~found.success & ~found.initially_wrong
    assert (found.forward_calls[left] > 200).all() and (found.gradient_calls[left] > 20 * 4).all()


def test_no_part_alone_breaks_more(res, test_digits):
    some = test_digits[:60]
    worst = WorstCase(0.09, size="quick")(res, some.images, some.labels, ids=some.ids)
    for attack, along in WorstCase(0.09, size="quick").suite(10):
        alone = attack(res, some.images, some.labels, ids=some.ids)
        assert along or not (alone.success & (alone.distance <= 0.09) & ~worst.success).any()
    pgd = PGD(0.09, steps=40, restarts=3)(res, some.images, some.labels, ids=some.ids)
    assert worst.success.sum() >= pgd.success.sum()


class Masked(Classifier):
    """A net with the answers of another and a gradient of zero."""

    def __init__(self, net):
        super().__init__(net.in_channels, net.classes)
        self.net = net

    def classify(self, images):
        return self.net.classify(images.detach() + 0 * images)


def test_a_source_and_square_get_past_a_masked_gradient(res, test_digits):
    some, masked = test_digits[:30], Masked(res).eval()
    own = WorstCase(0.15, size="quick")(masked, some.images, some.labels, ids=some.ids)
    assert own.history.shape[1] == 4 and own.history[:, 2].isinf().sum() > own.history[:, 3].isinf().sum()
    helped = WorstCase(0.15, size="quick")(masked, some.images, some.labels, ids=some.ids, source=res)
    assert helped.history.shape[1] == 6 and helped.success.sum() > own.success.sum()
    plain = APGD(0.15, steps=20)(res, some.images, some.labels, ids=some.ids)
    assert (helped.success | ~plain.success).all()


def test_it_passes_a_detector():
    net, images = watched()
    found = WorstCase(0.2, size="quick")(net, images, net.predict(images).labels, guard=Guard(Projection(), 1.0))
    assert found.success.all() and (Projection().score(found.images, ()) <= 1.0).all()


def test_order_and_batch_do_not_matter(res, test_digits):
    attack, some, order = WorstCase(0.1, size="quick"), test_digits[:20], [13, 2, 7]
    together = attack(res, some.images, some.labels, ids=some.ids)
    part = test_digits[order]
    alone = attack(res, part.images, part.labels, ids=part.ids)
    for name in ("images", "gradient_calls", "forward_calls", "history"):
        assert torch.equal(getattr(alone, name), getattr(together, name)[order])


def test_no_budget_no_change(res, test_digits):
    some = test_digits[:20]
    for norm in (LINF, L2):
        found = WorstCase(0.0, norm, size="quick")(res, some.images, some.labels)
        assert torch.equal(found.images, some.images) and not found.success.any()


def test_wrong_use():
    with pytest.raises(UnknownName, match="quick"):
        WorstCase(0.1, size="quik")
    with pytest.raises(InvalidInput, match="norm: expected LINF or L2, got rms"):
        WorstCase(0.1, RMS)
