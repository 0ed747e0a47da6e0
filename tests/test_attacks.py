"""Promises that every attack keeps, and known optima on linear classifiers."""

import dataclasses
import math

import pytest
import torch
from toys import Linear, pictures, small_ode_net

import odefend
from odefend.attacks import (
    APGD,
    BIM,
    DDN,
    FGSM,
    FMN,
    LOSSES,
    PGD,
    PRESETS,
    SPSA,
    AutoAttack,
    Availability,
    CarliniWagner,
    DeepFool,
    FoolboxAttack,
    MinimumNorm,
    Pushed,
    Square,
    SuperDeepFool,
    WorstCase,
    check_setup,
    named_attack,
)
from odefend.attacks.adam import Adam
from odefend.attacks.losses import cross_entropy, dlr, margin
from odefend.errors import InvalidInput, UnknownName
from odefend.models import Classifier, ODENet
from odefend.models.classifier import no_work
from odefend.norms import L2, LINF, NORMS, RMS
from odefend.solver import Status

SHORT_CW = CarliniWagner(steps=15, binary_search_steps=3, initial_constant=2.0)
ATTACKS = [
    *(
        attack
        for norm, epsilon in ((LINF, 0.1), (L2, 0.6), (RMS, 0.08))
        for attack in (
            FGSM(epsilon, norm),
            BIM(epsilon, norm),
            PGD(epsilon, norm, steps=5),
            PGD(epsilon, norm, steps=5, early_stop=False),
        )
    ),
    PGD(0.1, steps=3, restarts=2),
    PGD(0.1, steps=3, restarts=2, loss="margin", momentum=0.9, random_start=False),
    BIM(0.1, steps=3, momentum=1.0),
    APGD(0.1, steps=5),
    APGD(0.6, L2, steps=5, early_stop=False),
    APGD(0.08, RMS, steps=4, restarts=2, loss="margin", targets=2),
    DeepFool(steps=4),
    DeepFool(LINF, steps=4, candidates=3),
    SuperDeepFool(steps=3, candidates=3),
    DDN(steps=3),
    FMN(steps=3),
    FMN(LINF, steps=3, closing=2),
    MinimumNorm(steps=4, candidates=3),
    MinimumNorm(LINF, steps=4, candidates=3, closing=2),
    SHORT_CW,
    PGD(0.1, steps=3, search_precision="bfloat16"),
    dataclasses.replace(SHORT_CW, search_precision="bfloat16"),
    Square(0.1, queries=30),
    Square(0.6, L2, queries=30),
    SPSA(0.1, steps=3, samples=4),
    WorstCase(0.05, size="quick"),
    WorstCase(0.3, L2, size="quick", search_precision="bfloat16"),
    Pushed(SHORT_CW, 1.1),
    Pushed(PGD(0.05, steps=3), 1.5),
    Availability(0.1, steps=3, grid=4),
    Availability(0.5, L2, steps=3, grid=4),
]
ADAPTED = [
    FoolboxAttack("FGSM", epsilon=0.1),
    FoolboxAttack("L2PGD", {"steps": 3}, epsilon=0.5),
    FoolboxAttack("DDNAttack", {"steps": 8}),
    FoolboxAttack("L1FMNAttack", {"steps": 8}),
    FoolboxAttack("EADAttack", {"steps": 8, "binary_search_steps": 2, "initial_const": 1.0}),
    FoolboxAttack("HopSkipJumpAttack", {"steps": 1, "max_gradient_eval_steps": 20, "initial_gradient_eval_steps": 10}),
    FoolboxAttack("LinearSearchBlendedUniformNoiseAttack", {"steps": 20, "directions": 5}),
    AutoAttack(0.1, steps=3, queries=20),
    AutoAttack(0.5, L2, attacks=("square",), queries=20),
]
ON_A_SOLVER = [
    PGD(0.1, steps=5),
    PGD(0.1, steps=3, search_precision="bfloat16"),
    APGD(0.1, steps=4),
    DeepFool(LINF, steps=4, candidates=3),
    DDN(steps=3),
    *(attack for attack in ATTACKS if isinstance(attack, Availability)),
    FoolboxAttack("L2PGD", {"steps": 3}, epsilon=0.5),
]
"""One of each kind: a solve costs a hundred times what the other victims cost, and attacks do not know what they ask."""
BLIND = ("HopSkipJump", "BlendedUniformNoise", "'square'", "Square(", "SPSA(")
"""Attacks that ask for no gradients."""


def linear(classes=3, pixels=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, pixels, generator=generator, dtype=torch.float64)
    return Linear(weight, torch.zeros(classes, dtype=torch.float64)).eval()


def boundary_distance(net, images, labels, dual=2):
    """The exact L2 distance (L-inf with dual=1) to the nearest other class, for images far from the box's edge."""
    logits = net(images)
    gaps = []
    for other in range(net.classes):
        width = (net.weight[labels] - net.weight[other]).norm(p=dual, dim=1)
        gap = (logits.gather(1, labels[:, None])[:, 0] - logits[:, other]) / width
        gaps.append(torch.where(labels == other, torch.inf, gap))
    return torch.stack(gaps).amin(0).detach()


@pytest.fixture(scope="module")
def victim(request, oon, res, test_digits):
    if request.param == "two classes":
        net, images = linear(2), 0.3 + 0.4 * pictures(20, seed=3)
        return net, images, net.predict(images).labels.index_fill(0, torch.tensor([4]), 0)
    some = test_digits[:20]
    return (oon if request.param == "ode" else res), some.images, some.labels.index_fill(0, torch.tensor([4]), 9)


@pytest.mark.filterwarnings("ignore:.* failed to draw sufficient random inputs")
@pytest.mark.parametrize(
    ("attack", "victim"),
    [
        *((attack, "ode") for attack in ON_A_SOLVER),
        *((attack, victim) for victim in ("resnet", "two classes") for attack in (*ATTACKS, *ADAPTED)),
    ],
    indirect=["victim"],
    ids=str,
)
def test_contract(attack, victim):
    """Image 4 carries a wrong label on purpose (unless it is true by chance)."""
    net, images, labels = victim
    if isinstance(attack, Availability) and not isinstance(net, ODENet):
        with pytest.raises(InvalidInput, match="expected a net that solves an ODE"):
            attack(net, images, labels)
        return
    found = attack(net, images, labels)
    again = attack(net, images, labels)
    assert torch.equal(found.images, again.images)
    assert found.images.min() >= 0 and found.images.max() <= 1
    before, after = net.predict(images), net.predict(found.images)
    assert torch.equal(found.initially_wrong, ~before.correct(labels))
    assert torch.equal(found.success, before.correct(labels) & after.fooled(labels))
    assert not (found.success & found.initially_wrong).any()
    assert (found.distance[found.initially_wrong] == 0).all()
    assert torch.equal(found.images[found.initially_wrong], images[found.initially_wrong])
    size = attack.measure(found.images - images)
    if attack.budget is None:
        failed = ~found.success & ~found.initially_wrong
        assert (found.distance[failed] == math.inf).all()
        assert torch.equal(found.images[failed], images[failed])
        torch.testing.assert_close(found.distance[found.success], size[found.success])
    else:
        assert (size <= attack.budget * (1 + 1e-5) + 1e-6).all()
        torch.testing.assert_close(found.distance[~found.initially_wrong], size[~found.initially_wrong])
    blind = any(name in repr(attack) for name in BLIND)
    assert ((found.gradient_calls[~found.initially_wrong] > 0) != blind).all()
    assert (found.gradient_calls[found.initially_wrong] == 0).all()
    assert (found.forward_calls[~found.initially_wrong] > 1).all()
    steps = found.history
    assert (steps[:, 1:] <= steps[:, :-1]).all(), "the smallest distance so far can only fall"
    if isinstance(attack, FGSM | BIM):
        assert torch.isinf(steps[:, 0]).all()


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(0.0),
        BIM(0.0),
        PGD(0.0, steps=2),
        APGD(0.0, steps=3),
        APGD(0.0, L2, steps=3, targets=2),
        Availability(0.0, steps=2, grid=2),
        Pushed(PGD(0.0, steps=2)),
        FoolboxAttack("L2PGD", {"steps": 2}, epsilon=0.0),
        AutoAttack(0.0),
    ],
    ids=repr,
)
def test_no_budget_no_change(attack, oon, test_digits):
    some = test_digits[:20]
    found = attack(oon, some.images, some.labels)
    assert torch.equal(found.images, some.images) and not found.success.any()


class Brightness(Classifier):
    """Whether an image is brighter than 0.6."""

    def __init__(self):
        super().__init__(1, 2)

    def classify(self, images):
        mean = images.mean((1, 2, 3))
        return no_work(torch.stack([torch.full_like(mean, 0.6), mean], 1))


@pytest.mark.parametrize("attack", [BIM(0.5, L2, steps=5, loss="margin"), Pushed(FGSM(0.4, L2), 1.25)], ids=repr)
def test_pixels_that_are_all_rounded_alike_do_not_leave_the_ball(attack):
    images, labels = torch.full((4, 1, 224, 224), 0.5), torch.zeros(4, dtype=torch.int64)
    found = attack(Brightness().eval(), images, labels)
    delta = found.images.double() - images.double()
    assert (L2.size(delta) <= 0.5 * (1 + 1e-14)).all() and (found.distance > 0.4999).all()


@pytest.mark.parametrize("attack", [PGD(0.1, steps=5), SHORT_CW], ids=repr)
def test_order_and_batch_do_not_matter(attack, oon, test_digits):
    """The same seed and ids give the same images bit for bit, whatever the batch: active sets are padded."""
    some = test_digits[:20]
    together = attack(oon, some.images, some.labels, ids=some.ids)
    order = [13, 2, 7]
    part = test_digits[order]
    alone = attack(oon, part.images, part.labels, ids=part.ids)
    assert torch.equal(alone.images, together.images[order])
    assert torch.equal(alone.gradient_calls, together.gradient_calls[order])


def test_random_starts_depend_on_seed_and_id(oon, test_digits):
    some, attack = test_digits[:20], PGD(0.1, steps=1, early_stop=False)
    base = attack(oon, some.images, some.labels, ids=some.ids).images
    assert not torch.equal(attack(oon, some.images, some.labels, ids=some.ids, seed=1).images, base)
    other = attack(oon, some.images, some.labels, ids=[f"{name}'" for name in some.ids]).images
    assert not torch.equal(other, base)


@pytest.mark.parametrize("norm", NORMS.values(), ids=str)
def test_fgsm_and_pgd_reach_the_known_optimum_of_a_linear_net(norm):
    """For two classes the worst perturbation of a linear net is epsilon times the steepest direction."""
    net, images = linear(2, seed=5), torch.full((16, 1, 8, 8), 0.5, dtype=torch.float64)
    labels = net.predict(images).labels
    epsilon = {"linf": 0.1, "l2": 0.8, "rms": 0.1}[norm.name]
    direction = (net.weight[1 - labels] - net.weight[labels]).detach().view_as(images)
    best = margin(net(images + epsilon * norm.steepest(direction)), labels).detach()
    for attack in (FGSM(epsilon, norm), PGD(epsilon, norm, steps=60, step_size=epsilon / 3, early_stop=False)):
        found = attack(net, images, labels)
        reached = margin(net(found.images), labels).detach()
        torch.testing.assert_close(reached, best, rtol=1e-3, atol=1e-3)


def test_carlini_wagner_finds_the_known_distance_of_a_linear_net():
    net, images = linear(3, seed=1), 0.4 + 0.2 * pictures(16, seed=2)
    labels = net.predict(images).labels
    found = CarliniWagner(steps=600, binary_search_steps=10, learning_rate=0.005)(net, images, labels)
    exact = boundary_distance(net, images, labels)
    assert found.success.all()
    assert (found.distance / exact).min() > 1 - 1e-9
    assert (found.distance / exact).mean() < 1.01


@pytest.mark.parametrize("norm", [L2, LINF], ids=str)
def test_deepfool_finds_the_known_distance_of_a_linear_net(norm):
    net, images = linear(3, seed=1), 0.4 + 0.2 * pictures(16, seed=2)
    labels = net.predict(images).labels
    found = DeepFool(norm, overshoot=1e-4)(net, images, labels)
    exact = boundary_distance(net, images, labels, dual=1 if norm == LINF else 2)
    assert found.success.all() and (found.distance / exact).min() > 1 - 1e-9
    torch.testing.assert_close(found.distance, 1.0001 * (exact + 1e-4))
    published = DeepFool(norm)(net, images, labels)
    torch.testing.assert_close(published.distance, 1.02 * (exact + 1e-4))


@pytest.mark.parametrize(
    "attack",
    [
        *(PGD(0.4, steps=15, loss=loss, target=1) for loss in ("cross-entropy", "margin")),
        BIM(0.4, target=1),
        CarliniWagner(steps=100, binary_search_steps=3, initial_constant=10.0, target=1),
    ],
    ids=repr,
)
def test_a_targeted_attack_succeeds_only_with_its_target(attack, res, test_digits):
    some = test_digits[:40]
    some = some[some.labels != 1][:16]
    found = attack(res, some.images, some.labels)
    after, right = res.predict(found.images), ~found.initially_wrong
    assert torch.equal(found.success, right & (after.labels == 1))
    assert found.success.double().mean() > 0.8
    if attack.budget is None:
        free = dataclasses.replace(attack, target=None)(res, some.images, some.labels)
        both = found.success & free.success
        assert found.distance[both].mean() > free.distance[both].mean(), "one class is further than the nearest"


def test_a_targeted_search_finds_the_known_distance_of_a_linear_net():
    net, images = linear(3, seed=1), 0.4 + 0.2 * pictures(16, seed=2)
    labels = net.predict(images).labels
    images, labels = images[labels != 2], labels[labels != 2]
    logits, width = net(images).detach(), (net.weight[labels] - net.weight[2]).norm(dim=1).detach()
    exact = (logits.gather(1, labels[:, None])[:, 0] - logits[:, 2]) / width
    found = CarliniWagner(steps=600, binary_search_steps=10, learning_rate=0.005, target=2)(net, images, labels)
    # The way to class 2 may lead through a third class, and then is longer than to the nearest boundary.
    assert found.success.all() and (found.distance / exact).min() > 1 - 1e-9
    through = torch.isclose(found.distance, exact, rtol=0.01)
    assert through.double().mean() > 0.5
    with pytest.raises(InvalidInput, match=f"of other classes than 2, got {len(labels)}"):
        PGD(0.1, target=2)(net, images, torch.full_like(labels, 2))
    with pytest.raises(InvalidInput, match=r"a class in 0\.\.2"):
        PGD(0.1, target=3)(net, images, labels)
    with pytest.raises(InvalidInput, match="nearest class"):
        DeepFool(target=1)


def test_deepfool_tries_only_its_candidates():
    """The class with the second largest logit may be far, another one near."""
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 10.0]], dtype=torch.float64)
    net = Linear(weight, torch.tensor([0.0, -0.6, -5.5], dtype=torch.float64)).eval()
    image, label = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    assert net(image).argsort(descending=True).tolist() == [[0, 1, 2]]
    for candidates, way in ((2, 0.1), (3, 0.05), (10, 0.05)):
        found = DeepFool(candidates=candidates, overshoot=0.0)(net, image, label)
        assert found.distance.item() == pytest.approx(way, rel=1e-2)
        assert found.gradient_calls.item() == min(candidates, 3) - 1


def test_the_ratio_of_logits_does_not_know_their_scale():
    logits, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(dlr(7 * logits, labels), dlr(logits, labels))
    assert torch.equal(dlr(logits, labels) > 0, margin(logits, labels) > 0)
    assert dlr(torch.tensor([[4.0, 1.0, 3.0]]), torch.tensor([0])).item() == pytest.approx(-1 / 3)
    with pytest.raises(InvalidInput, match="3 classes or more"):
        dlr(logits[:, :2], labels.clamp(max=1))


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_climbs(loss, oon, test_digits):
    some = test_digits[:16]
    found = PGD(0.3, steps=10, loss=loss)(oon, some.images, some.labels)
    assert found.success.double().mean() > (0.3 if loss == "dlr" else 0.8)


def test_momentum_is_that_of_its_paper(oon, test_digits):
    some = test_digits[:16]
    found = BIM(0.1, L2, steps=3, step_size=0.05, early_stop=False, momentum=0.8)(oon, some.images, some.labels)
    x, velocity, seen = some.images, 0, []
    for _ in range(4):
        seen.append(x)
        x = x.detach().requires_grad_(True)
        loss = cross_entropy(oon(x), some.labels).sum()
        gradient = torch.autograd.grad(loss, x)[0]
        velocity = 0.8 * velocity + gradient / gradient.abs().mean((1, 2, 3), keepdim=True)
        x = x.detach() + 0.05 * L2.steepest(velocity)
        x = (some.images + L2.project(x - some.images, 0.1)).clamp(0, 1)
    gains = torch.stack([margin(oon(x), some.labels) for x in seen])
    best = torch.stack(seen)[gains.argmax(0), torch.arange(16)]
    right = ~found.initially_wrong
    torch.testing.assert_close(found.images[right], best[right], rtol=0, atol=2e-4)


def test_presets_are_the_published_settings():
    """By name: steps, rounds, learning rate, first constant."""
    own = {"fast", "digits-l2", "mnist-l2", "cifar10-l2", "thorough"}
    searches = {n: p.attack for n, p in PRESETS.items() if isinstance(p.attack, CarliniWagner) and n not in own}
    told = {
        name: (one.steps, one.binary_search_steps, one.learning_rate, one.initial_constant)
        for name, one in searches.items()
    }
    assert told == {
        "carrara-mnist": (100, 5, 0.05, 0.01),
        "carrara-cifar10": (100, 5, 0.01, 0.01),
        "foolbox2": (1000, 5, 0.005, 0.01),
        "foolbox3": (10_000, 9, 0.01, 0.001),
        "caldelli": (1000, 7, 0.01, 0.001),
    }
    assert all(one.abort_early and one.confidence == 0 for one in searches.values())
    assert PRESETS["wifs-linf"].attack == BIM(0.05, LINF, steps=10, step_size=0.05)
    assert PRESETS["wifs-l2"].attack == BIM(0.05, RMS, steps=10, step_size=0.05)
    assert all(preset.reason for preset in PRESETS.values())


def test_attacks_are_made_of_names_and_settings():
    assert named_attack("pgd", {"epsilon": 0.1, "norm": "l2", "steps": 7}) == PGD(0.1, L2, steps=7)
    assert named_attack("fast", {"steps": 3}) == dataclasses.replace(PRESETS["fast"].attack, steps=3)
    assert named_attack("foolbox", {"attack": "DDNAttack", "settings": {"steps": 3}}) == FoolboxAttack(
        "DDNAttack", {"steps": 3}
    )
    assert named_attack("autoattack", {"epsilon": 1, "attacks": ["square"]}) == AutoAttack(1.0, attacks=("square",))
    with pytest.raises(UnknownName, match="Did you mean 'pgd'"):
        named_attack("pdg")
    with pytest.raises(UnknownName, match="Did you mean 'steps'"):
        named_attack("pgd", {"step": 3})
    with pytest.raises(UnknownName, match="l2"):
        named_attack("pgd", {"epsilon": 1.0, "norm": "l3"})
    with pytest.raises(InvalidInput, match="epsilon"):
        named_attack("pgd")
    with pytest.raises(InvalidInput, match=r"steps.*integer"):
        named_attack("pgd", {"epsilon": 0.1, "steps": "many"})


class Odd(Linear):
    """A linear net with something wrong."""

    def __init__(self, net, how):
        super().__init__(net.weight, net.bias)
        self.how = how

    def classify(self, images):
        said = super().classify(images)
        return dataclasses.replace(said, logits=self.how(said.logits))


def test_a_check_at_the_start_tells_what_looks_wrong():
    net, images = linear(), 0.3 + 0.4 * pictures(20)
    labels = net.predict(images).labels

    def found(how=lambda logits: logits, images=images, labels=labels):
        return " ".join(check_setup(Odd(net, how).eval(), images, labels))

    assert found() == ""
    assert "divided by 255 twice" in found(images=images / 255, labels=net.predict(images / 255).labels)
    assert "probabilities" in found(lambda logits: logits.softmax(1))
    assert "cross-entropy of exactly 0" in found(lambda logits: 1e4 * logits)
    assert "classified rightly" in found(labels=(labels + 1) % 3)
    assert "the net is random" in found(lambda logits: logits + 1e-4 * torch.randn_like(logits))
    assert "depend on the other images" in found(lambda logits: logits - 0.5 * logits[-1])
    stuck = small_ode_net().at(max_steps=1, tolerance=1e-9)
    assert "solver fails on 4 of 4" in " ".join(check_setup(stuck, pictures(4), torch.zeros(4, dtype=torch.int64)))


def test_the_check_tells_of_gradients_that_are_those_of_step_sizes(oon, test_digits):
    images, labels = test_digits[:2].images, test_digits[:2].labels
    assert check_setup(oon.at(gradient="exact"), images, labels) == []
    assert check_setup(oon.at(1e-7), images, labels) == []
    (said,) = check_setup(oon.at(1e-7, gradient="exact"), images, labels)
    assert "on 2 of 2 images the gradient is more than 10 times that along the steps" in said


def test_confidence_pushes_past_the_boundary():
    net, images = linear(3, seed=1), 0.4 + 0.2 * pictures(16, seed=2)
    labels = net.predict(images).labels
    sure = CarliniWagner(steps=200, binary_search_steps=6, learning_rate=0.02, confidence=1.0)(net, images, labels)
    assert (margin(net(sure.images[sure.success]), labels[sure.success]) >= 1 - 1e-6).all() and sure.success.all()


def test_adam_is_that_of_torch():
    w = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    theirs = w.clone().requires_grad_(True)
    optimizer, ours = torch.optim.Adam([theirs], lr=0.1), Adam(w, 0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (theirs**4).sum().backward()
        optimizer.step()
        ours.step(4 * ours.w**3)
    torch.testing.assert_close(ours.w, theirs.detach())


def test_a_source_supplies_gradients_and_the_judge_decides(oon, res, test_digits):
    some = test_digits[:20]
    attack = PGD(0.3, steps=5, early_stop=False)
    transferred = attack(oon, some.images, some.labels, source=res, ids=some.ids)
    assert torch.equal(
        transferred.success,
        oon.predict(some.images).correct(some.labels) & oon.predict(transferred.images).fooled(some.labels),
    )
    assert (transferred.forward_calls > attack(oon, some.images, some.labels, ids=some.ids).forward_calls).all()
    # A source that knows nothing of the judge: gradients of a constant are zero, counted, and break nothing.
    blind = Linear(torch.zeros(10, 64), torch.zeros(10)).eval()
    found = FGSM(0.3)(oon, some.images, some.labels, source=blind)
    assert torch.equal(found.images, some.images)
    assert torch.equal(found.zero_gradients, found.gradient_calls)


def test_success_is_the_judges_whatever_the_source():
    """A source whose margins are three times the judge's must not make the attack stop at a third of the confidence."""
    judge, images = linear(2, seed=5), torch.full((16, 1, 8, 8), 0.5, dtype=torch.float64)
    labels = judge.predict(images).labels
    bold = Linear(judge.weight.detach().clone(), torch.tensor([0.0, 0.0], dtype=torch.float64)).eval()
    bold.weight.data *= 3
    attack = CarliniWagner(steps=100, binary_search_steps=6, learning_rate=0.01, confidence=1.0)
    own, other = attack(judge, images, labels), attack(judge, images, labels, source=bold)
    assert own.success.all() and other.success.all()
    for found in (own, other):
        assert (margin(judge(found.images), labels) >= 1 - 1e-6).all()


def test_more_restarts_never_end_with_less(oon, test_digits):
    some = test_digits[:16]
    gains = []
    for restarts in (1, 3):
        found = PGD(0.08, steps=2, restarts=restarts)(oon, some.images, some.labels, ids=some.ids)
        gains.append(margin(oon(found.images), some.labels))
    assert (gains[1] >= gains[0] - 1e-5).all() and (gains[1] > gains[0] + 1e-3).any()


def test_the_contract_covers_every_attack():
    assert {type(attack) for attack in [*ATTACKS, *ADAPTED]} == {*odefend.ATTACKS.values(), Pushed}


def test_a_tiny_gradient_has_a_direction():
    gradient = torch.full((1, 1, 2, 2), 1e-30)
    for norm in NORMS.values():
        assert norm.size(norm.steepest(gradient)) == pytest.approx(1, rel=1e-5)


def test_abstentions_are_not_successes(test_digits, oon):
    some = test_digits[:16]
    stuck = oon.at(1e-6, max_steps=2)
    found = PGD(0.3, steps=2)(stuck, some.images, some.labels)
    assert found.initially_wrong.all() and not found.success.any()
    assert (found.status == Status.MAX_STEPS).all()


def test_an_attack_may_drive_the_judge_into_abstention_without_profit(oon, test_digits):
    """With few solver steps allowed, candidates that exhaust them do not count as broken."""
    some = test_digits[:16]
    nfe = oon.predict(some.images).nfe
    tight = oon.at(max_steps=int((nfe.max() - 2) // 6))
    found = PGD(0.5, steps=5, early_stop=False)(tight, some.images, some.labels)
    assert not (found.success & (found.status != Status.SUCCESS)).any()


def test_losses_are_right_for_two_classes():
    logits, labels = torch.tensor([[1.0, 3.0], [2.0, -1.0]]), torch.tensor([0, 0])
    assert margin(logits, labels).tolist() == [2.0, -3.0]
    assert torch.allclose(
        cross_entropy(logits, labels), torch.tensor([math.log1p(math.exp(2)), math.log1p(math.exp(-3))])
    )


def test_an_empty_batch():
    net = linear()
    found = PGD(0.1)(net, torch.zeros(0, 1, 8, 8, dtype=torch.float64), torch.zeros(0, dtype=torch.int64))
    assert len(found.success) == 0


def test_wrong_use(oon, test_digits):
    some = test_digits[:4]
    attack = FGSM(0.1)
    with pytest.raises(InvalidInput, match=r"values in \[0, 1\]"):
        attack(oon, some.images * 255, some.labels)
    with pytest.raises(InvalidInput, match="expected 4 class indices"):
        attack(oon, some.images, some.labels[:2])
    with pytest.raises(InvalidInput, match=r"0\.\.9"):
        attack(oon, some.images, some.labels + 10)
    with pytest.raises(InvalidInput, match="different ones"):
        attack(oon, some.images, some.labels, ids=["a"] * 4)
    with pytest.raises(InvalidInput, match="training mode"):
        attack(small_ode_net(classes=10, dtype=torch.float32).train(), some.images, some.labels)
    for wrong in (
        lambda: PGD(-0.1),
        lambda: PGD(0.1, steps=0),
        lambda: BIM(0.1, step_size=0.0),
        lambda: CarliniWagner(steps=0),
        lambda: CarliniWagner(confidence=-1.0),
        lambda: PGD(0.1, restarts=0),
        lambda: PGD(math.nan),
        lambda: BIM(0.1, momentum=1.5),
        lambda: DeepFool(RMS),
        lambda: DeepFool(overshoot=-0.1),
        lambda: DeepFool(candidates=0),
    ):
        with pytest.raises(InvalidInput, match="expected a"):
            wrong()
    with pytest.raises(UnknownName, match="Did you mean 'margin'"):
        PGD(0.1, loss="margins")
