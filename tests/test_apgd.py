"""APGD: known optima, its schedule, and the same in any batch, beside pyautoattack's."""

from dataclasses import replace

import pytest
import torch
from test_attacks import linear
from toys import Linear, pictures, same_in_any_batch

from odefend.attacks import APGD, PGD, AutoAttack, Expectation
from odefend.attacks.apgd import _Climb, checkpoints
from odefend.attacks.losses import LOSSES, TARGETED, cross_entropy, dlr, margin, targeted_dlr
from odefend.defenses import InputNoise
from odefend.errors import InvalidInput
from odefend.norms import L2, LINF, RMS, dual

RADII = [(LINF, 0.1), (L2, 0.8), (RMS, 0.1)]


def reached(attack, net, images, labels):
    return margin(net(attack(net, images, labels).images), labels).detach()


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize(("norm", "epsilon"), RADII, ids=str)
def test_it_reaches_the_known_optimum_of_two_classes(norm, epsilon, loss):
    net, images = linear(2, seed=5), 0.4 + 0.2 * pictures(8)
    labels = net.predict(images).labels
    slope = (net.weight[1 - labels] - net.weight[labels]).detach().view_as(images)
    best = margin(net(images), labels).detach() + epsilon * dual(norm, slope)
    found = reached(APGD(epsilon, norm, steps=30, early_stop=False, loss=loss), net, images, labels)
    torch.testing.assert_close(found, best, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", [LINF, L2], ids=str)
def test_it_reaches_the_known_optimum_where_the_box_binds(norm):
    net, images = linear(2, seed=4), pictures(8, seed=5).round(decimals=1)
    labels, epsilon = net.predict(images).labels, 0.3 if norm == LINF else 1.5
    slope = (net.weight[1 - labels] - net.weight[labels]).detach().view_as(images)
    way = slope if norm == L2 else slope.sign()
    low, high = torch.zeros(8, 1, 1, 1).double(), torch.full((8, 1, 1, 1), 10.0).double()
    for _ in range(60):  # as far as the ball allows, where pixels stop at the box
        middle = (low + high) / 2
        inside = norm.size((images + middle * way).clamp(0, 1) - images) <= epsilon
        inside &= (middle.flatten() <= epsilon) if norm == LINF else True
        low, high = (torch.where(inside.view(-1, 1, 1, 1), one, two) for one, two in ((middle, low), (high, middle)))
    best = margin(net((images + low * way).clamp(0, 1)), labels).detach()
    free = margin(net(images), labels).detach() + epsilon * dual(norm, slope)
    found = reached(APGD(epsilon, norm, steps=60, early_stop=False, loss="margin"), net, images, labels)
    assert (best < free - 0.1).all(), "the box binds"
    assert (found <= best + 1e-9).all() and (
        (best - found) < 0.01 * (free - margin(net(images), labels).detach())
    ).all()


@pytest.mark.parametrize("loss", ["cross-entropy", "margin", "dlr"])
@pytest.mark.parametrize(("norm", "epsilon"), RADII, ids=str)
def test_targets_reach_the_best_class_of_a_linear_net(norm, epsilon, loss):
    net, images = linear(5, seed=3), 0.4 + 0.2 * pictures(8)
    labels = net.predict(images).labels
    logits, widths = net(images).detach(), []
    for other in range(5):
        slope = (net.weight[torch.full_like(labels, other)] - net.weight[labels]).detach().view_as(images)
        widths.append(epsilon * dual(norm, slope))
    # The best lead of each class; the largest of them is the best margin.
    leads = logits - logits.gather(1, labels[:, None]) + torch.stack(widths, 1)
    best = leads.scatter(1, labels[:, None], -torch.inf).amax(1)
    attack = APGD(epsilon, norm, steps=40, early_stop=False, loss=loss, targets=4)
    found = reached(attack, net, images, labels)
    # The ratio stops growing where it is flat, which is not where the lead is largest.
    torch.testing.assert_close(found, best, rtol=1e-2 if loss == "margin" else 0.2, atol=1e-3)
    assert (found <= best + 1e-9).all()


def test_checkpoints_are_those_of_the_paper_for_its_own_number_of_steps():
    assert [at for at, _ in checkpoints(100)] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(checkpoints(1000))[:3] == [(220, 220), (410, 190), (570, 160)]
    for steps in range(1, 40):
        at, periods = zip(*checkpoints(steps), strict=True)
        assert at[0] == -(-22 * steps // 100) and at[-1] == sum(periods) and all(period > 0 for period in periods)


def test_an_image_goes_back_to_its_best_point_with_half_its_step_when_it_swings():
    """Of four images one rises always, one swings, one has stopped where it was best, and one has only just begun to stop."""
    start = torch.zeros(4, 1, 1, 1)
    climb = _Climb.begun(torch.arange(4), torch.arange(4), start, 1.0)
    climb.halved, climb.last_top = torch.tensor([False] * 4), torch.tensor([0.0, 0.0, 4.0, 0.0])
    for step, heights in enumerate(([1.0, 3.0, 4.0, 1.0], [2, 1, 1, 2], [3, 2, 2, 3], [4, 1, 3, 4], [5, 2, 3.5, 5])):
        climb.x = torch.full_like(start, step)
        climb.note(torch.tensor(heights, dtype=start.dtype), torch.full_like(start, 10 * step))
    climb.check(0.75, 4)
    assert climb.size.tolist() == [1, 0.5, 0.5, 1]
    assert climb.x.flatten().tolist() == [4, 0, 0, 4] and climb.gradient.flatten().tolist() == [40, 0, 0, 40]
    # Rising steadily, but never above the best point: halved once, not again at once.
    before = climb.size
    for height in (0.1, 0.2, 0.3, 0.4, 0.5):
        climb.note(torch.full((4,), height), climb.gradient)
    climb.check(0.75, 4)
    assert (climb.size / before).tolist() == [0.5, 1, 1, 0.5]


@pytest.mark.parametrize(("norm", "epsilon"), [(LINF, 0.12), (L2, 0.7)], ids=str)
@pytest.mark.parametrize("part", ["apgd-ce", "apgd-dlr", "apgd-t"])
def test_it_breaks_what_pyautoattacks_does(res, test_digits, norm, epsilon, part):
    some = test_digits[:150]
    kind = {"apgd-ce": {}, "apgd-dlr": {"loss": "dlr"}, "apgd-t": {"loss": "dlr", "targets": 9}}[part]
    own = APGD(epsilon, norm, steps=15, **kind)(res, some.images, some.labels)
    theirs = AutoAttack(epsilon, norm, attacks=(part,), steps=15)(res, some.images, some.labels)
    assert 10 < theirs.success.sum() < 140, "the test can tell"
    assert own.success.sum() >= theirs.success.sum() - 3
    assert own.gradient_calls.sum() < theirs.gradient_calls.sum()


def test_it_breaks_more_than_pgd_in_as_many_steps(res, test_digits):
    some = test_digits[:200]
    for norm, epsilon in ((LINF, 0.1), (L2, 0.6)):
        gains = [
            margin(res(attack(res, some.images, some.labels, ids=some.ids).images), some.labels)
            for attack in (kind(epsilon, norm, steps=20, early_stop=False, loss="margin") for kind in (APGD, PGD))
        ]
        assert gains[0].mean() > gains[1].mean()


@pytest.mark.parametrize("attack", [APGD(0.1, steps=4), APGD(0.6, L2, steps=3, loss="dlr", targets=2)], ids=repr)
def test_order_and_batch_do_not_matter(attack, oon, test_digits):
    same_in_any_batch(attack, oon, test_digits)


def test_restarts_and_targets_start_anew_on_what_is_left(res, test_digits):
    some = test_digits[:40]
    one, more = (APGD(0.08, steps=3, restarts=n)(res, some.images, some.labels, ids=some.ids) for n in (1, 3))
    broken = one.success
    assert torch.equal(more.images[broken], one.images[broken])
    assert torch.equal(more.gradient_calls[broken], one.gradient_calls[broken])
    left = ~more.success & ~more.initially_wrong
    gains = [margin(res(found.images), some.labels)[left] for found in (one, more)]
    assert (
        (more.gradient_calls[left] == 9).all()
        and (gains[1] >= gains[0] - 1e-5).all()
        and (gains[1] > gains[0] + 1e-3).any()
    )
    other = APGD(0.08, steps=3)(res, some.images, some.labels, ids=some.ids, seed=1)
    assert not torch.equal(other.images, one.images)
    aimed = APGD(0.08, steps=3, targets=4)(res, some.images, some.labels, ids=some.ids)
    assert (aimed.gradient_calls[~aimed.success & ~aimed.initially_wrong] == 4 + 2 + 1).all()
    assert aimed.history.shape[1] == 4 + 2 + 1 + 1


def test_the_classes_race():
    attack = APGD(0.1, targets=9)
    rounds = [(9, range(22)), (4, range(22, 41)), (2, range(41, 57)), (1, range(57, 100))]
    assert attack.rounds(9) == rounds and attack.rounds(1) == [(1, range(100))] and attack.cost == 349
    assert replace(attack, race=False).rounds(9) == [(9, range(100))] and replace(attack, race=False).cost == 900
    for steps in range(1, 30):
        gone = [step for _, steps in APGD(0.1, steps=steps).rounds(9) for step in steps]
        assert gone == list(range(steps))
    # The class that the image is nearest to by its slope wins, though another has the largest logit at first.
    weight = torch.zeros(4, 64, dtype=torch.float64)
    weight[1], weight[2, :32], weight[3, :8] = 1.0, 4.0, 0.1
    net = Linear(weight, torch.tensor([60.0, 5.0, -30.0, 0.0], dtype=torch.float64)).eval()
    image, label = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64), torch.tensor([0])
    assert net.predict(image).labels == 0 and net(image).argsort(descending=True)[0, 1] == 1
    for steps in (10, 100):
        found = APGD(0.5, L2, steps=steps, loss="margin", targets=3, early_stop=False)(net, image, label)
        assert (found.images[0, 0, 4:] - 0.5).norm() < 1e-3 and found.distance.item() == pytest.approx(0.5)


def test_the_source_leads_and_the_classifier_judges_every_step(oon, res, test_digits):
    some = test_digits[:20]
    found = APGD(0.15, steps=6)(res, some.images, some.labels, source=oon, ids=some.ids)
    assert found.success.any() and torch.equal(
        found.success, found.success & res.predict(found.images).fooled(some.labels)
    )
    # An answer of the classifier for each gradient of the source, one before and one for the last point or at the end.
    right = ~found.initially_wrong
    assert (found.forward_calls >= found.gradient_calls + 2)[right].all()
    bold = Linear(torch.zeros(10, 64), torch.eye(10)[0]).eval()
    lost = APGD(0.15, steps=2, early_stop=False)(res, some.images, some.labels, source=bold, ids=some.ids)
    assert torch.equal(lost.zero_gradients, lost.gradient_calls)


def test_it_averages_over_draws():
    """Along the mean of the draws of noise the best step is that of the net itself, and the draws' mean judges."""
    net, images = linear(2, seed=5), torch.full((6, 1, 8, 8), 0.5, dtype=torch.float64)
    labels, ids = net.predict(images).labels, [str(number) for number in range(6)]
    mean = Expectation([InputNoise(0.2)(net).draw(ids, number) for number in range(16)])
    attack = APGD(0.05, steps=20, early_stop=False)
    found = attack(mean, images, labels, ids=ids)
    best = reached(attack, net, images, labels)
    torch.testing.assert_close(margin(net(found.images), labels).detach(), best, rtol=1e-2, atol=1e-2)
    fresh = Expectation([InputNoise(0.2, seed=1)(net).draw(ids, number) for number in range(16)])
    assert fresh.predict(found.images).fooled(labels)[found.success].all()


def test_the_targeted_ratio_is_that_of_the_paper():
    logits, labels, others = torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.0]]), torch.tensor([0]), torch.tensor([1])
    assert targeted_dlr(logits, labels, others).item() == pytest.approx((1 - 4) / (4 - (2 + 1) / 2))
    torch.testing.assert_close(targeted_dlr(7 * logits, labels, others), targeted_dlr(logits, labels, others))
    with pytest.raises(InvalidInput, match="4 classes or more for dlr with targets, got 3"):
        targeted_dlr(logits[:, :3], labels, others)


def test_wrong_use():
    net, images = linear(2), 0.3 + 0.4 * pictures(3)
    labels = net.predict(images).labels
    with pytest.raises(InvalidInput, match="3 classes or more for dlr, got 2"):
        APGD(0.1, steps=2, loss="dlr")(net, images, labels)
    for wrong in (
        lambda: APGD(0.1, steps=0),
        lambda: APGD(0.1, restarts=0),
        lambda: APGD(0.1, momentum=1.5),
        lambda: APGD(0.1, rho=-0.1),
        lambda: APGD(0.1, targets=-1),
        lambda: APGD(0.1, targets=2, target=1),
    ):
        with pytest.raises(InvalidInput, match="expected"):
            wrong()


def test_losses_towards_a_class_rise_with_it():
    logits, labels, others = torch.randn(6, 5, dtype=torch.float64), torch.arange(6) % 5, (torch.arange(6) + 2) % 5
    logits = logits + 5 * torch.nn.functional.one_hot(labels, 5)
    for loss in LOSSES.values():
        x = logits.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(TARGETED[loss](x, labels, others).sum(), x)
        assert (gradient.gather(1, others[:, None]) > 0).all()
    assert set(LOSSES.values()) == {cross_entropy, margin, dlr}
