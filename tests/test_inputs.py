"""What users hand over that cannot be: one line that says what was expected, what came, and what to do, never a raw error.

As users run it, without the types checked at run time.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from toys import Linear, pictures, small_ode_net

from odefend.attacks import BIM, FGSM, PGD, Availability, CarliniWagner, FoolboxAttack, named_attack
from odefend.cli.chosen import chosen_attack
from odefend.detectors import OnePassMargin, PrincipalComponents
from odefend.errors import InvalidInput
from odefend.experiments import AttackPart
from odefend.norms import L2, RMS

pytestmark = pytest.mark.unchecked  # as a user has it: the types are wrong on purpose


@pytest.fixture(scope="module")
def net():
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    return Linear(weight, torch.zeros(3)).eval()


IMAGES = pictures(4, dtype=torch.float32)
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (IMAGES.numpy(), r"expected a torch.Tensor, got ndarray. Use torch.as_tensor"),
        (
            IMAGES.double(),
            r"expected torch.float32 as the net's weights are, got torch.float64.*images.to\(torch.float32\)",
        ),
        (IMAGES.half(), r"got torch.float16. Use images.float\(\)"),
        (IMAGES.bfloat16(), r"got torch.bfloat16. Use images.float\(\)"),
        ((255 * IMAGES).byte(), "got torch.uint8. Try images / 255"),
        (255 * IMAGES, r"values in \[0, 1\]"),
        (IMAGES[0], "needs a batch axis"),
    ],
    ids=["numpy", "float64", "float16", "bfloat16", "bytes", "0..255", "single"],
)
def test_images(net, images, told):
    for use in (net.predict, lambda x: FGSM(0.1)(net, x, LABELS), lambda x: OnePassMargin(net).score(x, list("abcd"))):
        with pytest.raises(InvalidInput, match=told):
            use(images)


def test_a_net_in_double_precision_says_so_too(net):
    with pytest.raises(InvalidInput, match=r"expected torch.float64 as the net's weights are, got torch.float32"):
        small_ode_net().predict(IMAGES)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64], ids=str)
def test_labels_of_any_integers(net, dtype):
    labels = net.predict(IMAGES).labels
    found, same = (FGSM(0.3)(net, IMAGES, some) for some in (labels.to(dtype), labels))
    assert torch.equal(found.images, same.images) and torch.equal(found.success, same.success) and same.success.any()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (LABELS[:, None], r"integers of shape \(4,\), got torch.int64 of shape \(4, 1\)"),
        (LABELS.float(), "got torch.float32"),
        (LABELS > 0, "got torch.bool"),
        (LABELS.numpy(), "expected a torch.Tensor, got ndarray"),
        (LABELS + 1, r"0\.\.2, got 1 to 3"),
    ],
    ids=["2-D", "float", "bool", "numpy", "range"],
)
def test_labels(net, labels, told):
    with pytest.raises(InvalidInput, match=told):
        FGSM(0.1)(net, IMAGES, labels)


def test_ids(net):
    for use in (
        lambda ids: PGD(0.1)(net, IMAGES, LABELS, ids=ids),
        lambda ids: OnePassMargin(net).score(IMAGES, ids),
    ):
        with pytest.raises(InvalidInput, match=r"expected strings, got int. Use \[str\(one\) for one in ids\]"):
            use(range(4))
        with pytest.raises(InvalidInput, match="one for each of 4 images, got 3"):
            use(["a", "b", "c"])


@pytest.mark.parametrize("tolerance", ["loose", [1e-3, 1e-2], float("nan"), -1.0, None, (1e-3, "loose")], ids=repr)
def test_tolerances(tolerance):
    net = small_ode_net()
    if tolerance is None:
        assert net.at(tolerance).settings.tolerance == net.settings.tolerance
        return
    with pytest.raises(InvalidInput, match=r"tolerance: expected positive finite numbers, got .*Try 1e-3"):
        net.at(tolerance)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PGD(8),
        lambda: BIM(1.5),
        lambda: FGSM(8, RMS),
        lambda: Availability(8),
        lambda: named_attack("pgd", {"epsilon": 8}),
        lambda: FoolboxAttack("LinfPGD", epsilon=8),
    ],
)
def test_radii_on_the_scale_of_255(make):
    with pytest.raises(
        InvalidInput, match=r"at most 1 in (linf|rms), since pixels are in \[0, 1\], got .*on the scale of 0..255"
    ):
        make()


def test_radii(net):
    assert PGD(8, L2).epsilon == 8, "an L2 ball may be larger than 1"
    wrongs: tuple[Any, ...] = ("8/255", -0.1, float("nan"), None)
    for wrong in wrongs:
        with pytest.raises(InvalidInput, match="epsilon: expected a number >= 0, got"):
            PGD(wrong)
    assert named_attack("pgd", {"epsilon": "8/255"}) == PGD(8 / 255)
    assert chosen_attack("pgd", ["epsilon=8/255", "step_size = 2 / 255"], None) == PGD(8 / 255, step_size=2 / 255)
    assert chosen_attack("bim", ['epsilon="8/255"'], None) == BIM(8 / 255)
    with pytest.raises(InvalidInput, match=r"epsilon: .*got '8/0'"):
        named_attack("pgd", {"epsilon": "8/0"})
    part = AttackPart.model_validate({"attack": "pgd", "on": "net", "epsilon": ["8/255", 0.1]})
    assert part.epsilon == (8 / 255, 0.1)


def test_results_keep_no_graph(net):
    labels, images = net.predict(IMAGES).labels, IMAGES.clone().requires_grad_(True)
    for attack in (
        PGD(0.1, steps=2),
        CarliniWagner(steps=3, binary_search_steps=1),
        FoolboxAttack("L2PGD", {"steps": 2}, 0.5),
    ):
        found = attack(net, images, labels)
        assert not any(getattr(found, field.name).requires_grad for field in dataclasses.fields(found))
    assert images.grad is None and images.requires_grad


def test_nets_in_training_mode(net):
    training = Linear(net.weight.detach(), net.bias.detach())
    for use in (
        lambda: FGSM(0.1)(training, IMAGES, LABELS),
        lambda: FGSM(0.1)(net, IMAGES, LABELS, source=training),
        lambda: OnePassMargin(training).score(IMAGES, list("abcd")),
        lambda: PrincipalComponents(training).fit(IMAGES),
    ):
        with pytest.raises(InvalidInput, match=r"training mode.*Call net.eval\(\) first"):
            use()
    assert np.isfinite(training(IMAGES).detach().numpy()).all(), "bare answers are for training too"
