"""Foolbox and AutoAttack: under odefend's template, and odefend's nets in their hands."""

import random
import sys

import foolbox
import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack as TheirAutoAttack
from test_attacks import boundary_distance, linear
from toys import pictures

from odefend.attacks import BIM, PGD, AutoAttack, DeepFool, Expectation, FoolboxAttack, as_foolbox
from odefend.attacks.adapter import seeded
from odefend.attacks.autoattack_adapter import AUTO_ATTACKS
from odefend.defenses import BitDepth, InputNoise, MajorityVote, RandomTolerance
from odefend.defenses.randomized import RandomizedNet
from odefend.errors import InvalidInput, MissingExtra, UnknownName
from odefend.models import load
from odefend.norms import L2, LINF, RMS


def test_ddn_and_deepfool_find_the_known_distance_of_a_linear_net():
    net, images = linear(classes=4), 0.35 + 0.3 * pictures(12, seed=1)
    labels = net.predict(images).labels
    best = boundary_distance(net, images, labels)
    for attack in (
        FoolboxAttack("DDNAttack", {"steps": 300, "init_epsilon": 0.2}),
        FoolboxAttack("L2DeepFoolAttack", {"overshoot": 0.001}),
    ):
        found = attack(net, images, labels)
        assert found.success.all(), attack
        # Foolbox computes in single precision.
        assert (found.distance > best * (1 - 1e-4)).all() and (found.distance < 1.01 * best).all(), attack


@pytest.mark.parametrize("norm", [L2, LINF], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_deepfool_goes_as_far_as_foolboxs_whatever_the_scale_of_the_logits(norm, scale):
    """Both go 1e-4 beyond each linearized boundary, in units of the distance, not of the logits."""
    net, images = linear(4, seed=1), 0.4 + 0.2 * pictures(12, seed=2)
    net.weight.data *= scale
    labels = net.predict(images).labels
    own = DeepFool(norm)(net, images, labels)
    theirs = FoolboxAttack({"l2": "L2DeepFoolAttack", "linf": "LinfDeepFoolAttack"}[norm.name])(net, images, labels)
    assert own.success.all() and theirs.success.all()
    torch.testing.assert_close(own.distance, theirs.distance, rtol=1e-4, atol=1e-6)


def test_the_norm_is_the_attacks_own(oon, test_digits):
    some = test_digits[:8]
    for name, settings, norm in (
        ("EADAttack", {"steps": 10, "binary_search_steps": 2, "initial_const": 10.0}, "l1"),
        ("LInfFMNAttack", {"steps": 20}, "linf"),
        ("InversionAttack", {}, "l2"),
        ("InversionAttack", {"distance": "linf"}, "linf"),
    ):
        found = FoolboxAttack(name, settings)(oon, some.images, some.labels)
        order = {"l1": 1, "l2": 2, "linf": float("inf")}[norm]
        delta = (found.images - some.images).flatten(1)
        assert FoolboxAttack(name, settings).norm_name == norm
        torch.testing.assert_close(found.distance[found.success], delta.norm(p=order, dim=1)[found.success])


def test_bim_is_foolboxs(oon, test_digits):
    """The same steps: without early stop Foolbox's basic iterative attack ends at the same images."""
    some = test_digits[:24]
    theirs = FoolboxAttack("LinfBasicIterativeAttack", {"steps": 5, "abs_stepsize": 0.03}, epsilon=0.1)
    one = BIM(0.1, steps=5, step_size=0.03, early_stop=False)(oon, some.images, some.labels)
    other = theirs(oon, some.images, some.labels)
    assert (one.success == other.success).double().mean() > 0.95
    assert (one.images - other.images).abs().mean() < 0.02


def test_rms_is_the_unit_of_old_foolbox(res, test_digits):
    """Foolbox 1.8's L2 was a root of a mean: an RMS ball is an L2 ball of radius times the root of the number of pixels."""
    some = test_digits[:16]
    radius = 0.05
    mean = BIM(radius, RMS, steps=5, early_stop=False)(res, some.images, some.labels)
    total = FoolboxAttack("L2BasicIterativeAttack", {"steps": 5, "rel_stepsize": 0.5}, epsilon=radius * 8)(
        res, some.images, some.labels
    )
    assert (mean.success == total.success).double().mean() > 0.9
    assert L2.size(mean.images - some.images).max() <= radius * 8 + 1e-5


def _numpys_state():
    return np.array(np.random.get_state(legacy=False)["state"]["key"])  # type: ignore[index]


def test_global_generators_are_as_they_were(oon, test_digits):
    some = test_digits[:4]
    before = random.getstate()
    with seeded(3):
        random.random()
    assert random.getstate() == before  # beartype draws from it as well, so not over a whole attack
    states = _numpys_state(), torch.random.get_rng_state()
    FoolboxAttack("L2PGD", {"steps": 2}, epsilon=0.5)(oon, some.images, some.labels)
    AutoAttack(0.1, attacks=("square",), queries=10)(oon, some.images, some.labels)
    assert np.array_equal(_numpys_state(), states[0])
    assert torch.equal(torch.random.get_rng_state(), states[1])
    one, other = (
        FoolboxAttack("L2PGD", {"steps": 2}, epsilon=0.5)(oon, some.images, some.labels, seed=s).images for s in (0, 1)
    )
    assert not torch.equal(one, other)


def test_no_weight_gets_a_gradient(oon, test_digits):
    some, net = test_digits[:4], load("digits-res")
    FoolboxAttack("L2PGD", {"steps": 2}, epsilon=0.5)(net, some.images, some.labels)
    model = as_foolbox(net)
    foolbox.attacks.LinfPGD(steps=2)(model, some.images, some.labels, epsilons=0.1)
    assert all(weight.grad is None for weight in net.parameters())


def test_autoattack_is_no_weaker_than_its_parts(res, test_digits):
    some = test_digits[:24]
    whole = AutoAttack(0.1, steps=10, queries=100)(res, some.images, some.labels)
    square = AutoAttack(0.1, attacks=("square",), queries=100)(res, some.images, some.labels)
    pgd = PGD(0.1, steps=10)(res, some.images, some.labels)
    assert whole.success.sum() >= max(square.success.sum(), pgd.success.sum())
    assert (square.gradient_calls == 0).all() and (square.forward_calls[~square.initially_wrong] > 20).all()
    assert set(AUTO_ATTACKS) >= {"apgd-ce", "square"}


LIBRARIES = [
    AutoAttack(0.15, attacks=("apgd-ce", "fab-t"), steps=5),
    AutoAttack(0.15, attacks=("square",), queries=80),
    FoolboxAttack("LinfPGD", {"steps": 3, "rel_stepsize": 0.7}, epsilon=0.15),
    FoolboxAttack("DDNAttack", {"steps": 20, "init_epsilon": 0.2}),
]


@pytest.mark.parametrize("attack", LIBRARIES, ids=repr)
def test_libraries_attack_random_defenses(attack):
    """By an expectation over draws, each image under its own whichever the library asks about, and under others after."""
    net, images, ids = linear(3, seed=1), 0.3 + 0.4 * pictures(7, seed=2), [f"image {i}" for i in range(7)]
    defended, labels = InputNoise(0.02)(net), net.predict(images).labels
    mean, fresh = (Expectation([defended.draw(ids, first + i) for i in range(4)]) for first in (0, 4))
    found = attack(mean, images, labels, ids=ids)
    assert found.success.sum() >= 6
    alone = attack(mean.rows(torch.tensor([3])), images[3:4], labels[3:4], ids=ids[3:4])
    assert torch.equal(found.images[3:4], alone.images), "its own draws, not another image's"
    transferred = attack(fresh, images, labels, ids=ids, source=mean)
    assert transferred.success.sum() >= (5 if attack.budget else 1)
    assert attack(defended, images, labels, ids=ids).success.sum() >= (5 if attack.budget else 1)


def test_a_net_without_state_by_image_is_attacked_in_batches(oon, test_digits):
    """Views by image are made only where there is something to subset."""
    index, some = torch.tensor([2, 0]), test_digits[:3]
    noisy = InputNoise(0.1)(oon)
    for net in (oon, oon.at(1e-2), noisy, RandomTolerance()(oon), BitDepth(3)(oon), Expectation([oon, oon.at(1.0)])):
        assert net.rows(index) is net
    for net in (
        noisy.draw(some.ids, 0),
        oon.at(torch.tensor([1e-3, 1e-2, 1e-1])),
        MajorityVote(InputNoise(0.1), 2)(oon),
    ):
        drawn = net.draw(some.ids, 0) if isinstance(net, RandomizedNet) else net
        torch.testing.assert_close(
            drawn.rows(index).predict(some.images[index]).logits, drawn.predict(some.images).logits[index]
        )


def test_apgd_looks_at_its_steps_as_often_as_they_are_many(monkeypatch, res, test_digits):
    """22, then 19, 16, ... of 100 steps; 6, then 5, 4, ... of 30."""
    some, seen = test_digits[:4], {}
    theirs = TheirAutoAttack.run_standard_evaluation

    def spied(run, *args, **options):
        for name in ("apgd", "apgd_targeted"):
            part = getattr(run, name)
            fresh = type(part)(run.model, n_iter=part.n_iter, eps=0.1)
            seen[name] = [getattr(one, key) for one in (part, fresh) for key in ("n_iter_2", "n_iter_min", "size_decr")]
        return theirs(run, *args, **options)

    monkeypatch.setattr(TheirAutoAttack, "run_standard_evaluation", spied)
    AutoAttack(0.1, attacks=("apgd-ce",), steps=30)(res, some.images, some.labels)
    assert seen == {"apgd": [6, 1, 1] * 2, "apgd_targeted": [6, 1, 1] * 2}


def test_a_source_and_bfloat16_reach_the_libraries(oon, res, test_digits):
    some = test_digits[:8]
    attack = FoolboxAttack("LinfPGD", {"steps": 3, "random_start": False}, epsilon=0.1)
    own, transfer = (attack(oon, some.images, some.labels, source=source) for source in (None, res))
    assert not torch.equal(own.images, transfer.images)
    low = FoolboxAttack("LinfPGD", {"steps": 3, "random_start": False}, epsilon=0.1, search_precision="bfloat16")
    assert not torch.equal(own.images, low(oon, some.images, some.labels).images)


def test_foolboxs_users_can_drive_a_net(oon, test_digits):
    some = test_digits[:16]
    model = as_foolbox(oon.at(1e-2))
    assert foolbox.utils.accuracy(model, some.images, some.labels) > 0.9
    _, clipped, success = foolbox.attacks.carlini_wagner.L2CarliniWagnerAttack(
        steps=30, binary_search_steps=2, initial_const=5.0
    )(model, some.images, some.labels, epsilons=None)
    assert torch.equal(success, oon.at(1e-2).predict(clipped).fooled(some.labels)) and success.sum() > 4


def test_autoattacks_users_can_drive_a_net(res, test_digits):
    some = test_digits[:8]
    run = TheirAutoAttack(res, eps=0.2, version="custom", attacks=["apgd-ce"], seed=0)
    run.verbose, run.apgd.n_iter = False, 5
    images, _ = run.run_standard_evaluation(some.images, some.labels)
    assert res.predict(images.detach()).fooled(some.labels).sum() > 2


def test_a_target_reaches_foolbox(res, test_digits):
    some = test_digits[:40]
    some = some[(some.labels != 3).nonzero()[:, 0].tolist()]
    found = FoolboxAttack(
        "L2CarliniWagnerAttack", {"steps": 50, "binary_search_steps": 3, "initial_const": 1.0}, target=3
    )(res, some.images, some.labels)
    assert found.success.sum() > 5 and (res.predict(found.images).labels[found.success] == 3).all()


def test_an_image_without_a_start_does_not_stop_the_others():
    """One image is of a class that no noise is of, so Foolbox finds no start for it; the others are attacked all the same."""
    net = linear(classes=2)
    images = torch.full((4, 1, 8, 8), 0.5, dtype=torch.float64)
    with torch.no_grad():
        net.bias.copy_(torch.tensor([0.0, 1.0]))
        net.weight.zero_()
        net.weight[1] = 0.1  # class 1 unless an image is nearly black
        net.bias[0] = 1.5
        images[0] = 0.0
    labels = net.predict(images).labels
    assert labels.tolist() == [0, 1, 1, 1]
    attack = FoolboxAttack("HopSkipJumpAttack", {"steps": 1, "max_gradient_eval_steps": 10})
    with pytest.warns(UserWarning, match="failed to draw"):
        found = attack(net, images, labels)
    assert found.success[0] and not found.success[1:].any()


def test_where_foolbox_gives_up_nothing_is_found(res, test_digits):
    """Foolbox 3.3.4 then returns a black image, which fools most nets."""
    some = test_digits[:8]
    weak = {"steps": 4, "binary_search_steps": 1, "stepsize": 1e-4, "initial_const": 1e-3}
    found = FoolboxAttack("L2CarliniWagnerAttack", weak)(res, some.images, some.labels)
    assert not found.success.any() and found.distance.isinf().all()
    assert torch.equal(found.images, some.images)


def test_wrong_use(monkeypatch):
    with pytest.raises(UnknownName, match="DDNAttack"):
        FoolboxAttack("DDNAtack")
    with pytest.raises(InvalidInput, match="no epsilon"):
        FoolboxAttack("DDNAttack", epsilon=0.1)
    with pytest.raises(InvalidInput, match="an epsilon"):
        FoolboxAttack("LinfPGD")
    with pytest.raises(InvalidInput, match="step"):
        FoolboxAttack("LinfPGD", {"stepz": 3}, epsilon=0.1)
    with pytest.raises(UnknownName, match="l2"):
        FoolboxAttack("InversionAttack", {"distance": "l3"})
    with pytest.raises(InvalidInput, match="LINF or L2"):
        AutoAttack(0.1, RMS)
    with pytest.raises(UnknownName, match="apgd-ce"):
        AutoAttack(0.1, LINF, attacks=("apgd-c",))
    with pytest.raises(InvalidInput, match="tries all classes"):
        AutoAttack(0.1, target=3)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(MissingExtra, match=r"odefend\[attacks\]"):
        AutoAttack(0.1)
