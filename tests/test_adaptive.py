"""Attackers who know: expectation over draws, the best of several sources, pushing on, and attacks on time."""

import dataclasses
import itertools

import pytest
import torch
from toys import Linear, pictures, small_ode_net

from odefend.attacks import PGD, Availability, CarliniWagner, Expectation, Pushed, ode_sources, strongest
from odefend.defenses import LogUniform, RandomTolerance
from odefend.errors import InvalidInput
from odefend.models import ODENet, load
from odefend.solver import Status, effort


def linear(weight):
    return Linear(torch.as_tensor(weight, dtype=torch.float64), torch.zeros(len(weight), dtype=torch.float64)).eval()


def test_an_expectation_is_the_logarithm_of_the_mean_probability():
    generator = torch.Generator().manual_seed(0)
    members = [linear(torch.randn(3, 64, generator=generator, dtype=torch.float64)) for _ in range(4)]
    images = pictures(5)
    mean = torch.stack([one(images).softmax(1) for one in members]).mean(0)
    torch.testing.assert_close(Expectation(members)(images).exp(), mean)
    torch.testing.assert_close(Expectation(members[:1])(images), members[0](images).log_softmax(1))


def test_each_draw_of_a_defense_keeps_its_tolerance_when_rows_are_taken():
    net, images, ids = small_ode_net(), pictures(6), [f"i{k}" for k in range(6)]
    defended = RandomTolerance(LogUniform(1e-5, 1e-1), seed=3)(net)
    together = Expectation([defended.draw(ids, index) for index in range(3)])
    said = together.predict(images)
    some = torch.tensor([4, 1])
    part = together.rows(some).predict(images[some])
    torch.testing.assert_close(part.logits, said.logits[some], rtol=1e-9, atol=1e-9)
    assert torch.equal(part.nfe, said.nfe[some])
    alone = torch.stack([defended.draw(ids, index).predict(images).nfe for index in range(3)])
    assert torch.equal(said.nfe, alone.sum(0)) and len(alone.unique()) > 3


def test_an_answer_needs_every_member():
    net, images = small_ode_net(), pictures(4)
    stuck = Expectation([net, net.at(1e-8, max_steps=1)]).predict(images)
    assert not stuck.answered.any() and net.predict(images).answered.all()


def test_expectation_breaks_what_one_draw_does_not():
    """Two members whose gradients differ: a step along one of them helps against one only, a step along both helps."""
    first, second = torch.zeros(2, 64), torch.zeros(2, 64)
    first[1, 0], second[1, 1] = 10.0, 10.0
    first[0, 5], second[0, 5] = 4.0, 4.0
    members = [linear(first), linear(second)]
    images, labels = torch.full((16, 1, 8, 8), 0.5, dtype=torch.float64), torch.zeros(16, dtype=torch.int64)
    images[:, 0, 0, :2] = 0.0
    # The noise of a random start would help against both.
    attack = PGD(0.3, steps=10, random_start=False)
    knowing = attack(Expectation(members), images, labels)
    assert all((one(knowing.images).argmax(1) == 1).all() for one in members)
    one_draw = attack(members[0], images, labels)
    assert (members[1](one_draw.images).argmax(1) == 0).any()


@pytest.mark.parametrize(
    ("attack", "net"),
    [
        (PGD(0.25, steps=3), "digits-oon"),
        (CarliniWagner(steps=20, binary_search_steps=3, initial_constant=1.0), "digits-res-noise"),
    ],
)
def test_the_strongest_is_never_weaker_than_any(attack, net, res, test_digits):
    some, net = test_digits[:16], load(net)
    sources = [res, None, net.at(1e-1) if isinstance(net, ODENet) else load("digits-res-adversarial")]
    runs = [attack(net, some.images, some.labels, ids=some.ids, source=source) for source in sources]
    assert len({str(run.success.tolist()) for run in runs}) > 1, "none is the best for all"
    best = strongest(attack, net, some.images, some.labels, sources, ids=some.ids)
    assert torch.equal(best.found.success, torch.stack([run.success for run in runs]).any(0))
    for run in runs:
        assert (best.found.success >= run.success).all()
        if attack.budget is None:
            assert (best.found.distance <= run.distance).all()
    assert torch.equal(best.found.gradient_calls, torch.stack([run.gradient_calls for run in runs]).sum(0))
    for row, number in enumerate(best.source.tolist()):
        assert torch.equal(best.found.images[row], runs[number].images[row])
    again = net.predict(best.found.images).fooled(some.labels)
    assert torch.equal(again & ~best.found.initially_wrong, best.found.success)


def test_the_first_source_wins_among_equals(oon, test_digits):
    some = test_digits[:16]
    same = strongest(PGD(0.2, steps=2), oon, some.images, some.labels, [None, oon], ids=some.ids)
    assert (same.source == 0).all()
    assert {field.name for field in dataclasses.fields(same.found)} == set(vars(same.found))


def test_wrong_use(oon, res, test_digits):
    with pytest.raises(InvalidInput, match="one classifier or more"):
        Expectation([])
    with pytest.raises(InvalidInput, match="same pictures and classes"):
        Expectation([oon, small_ode_net()])
    with pytest.raises(InvalidInput, match="one or more"):
        strongest(PGD(0.1), oon, test_digits.images[:2], test_digits.labels[:2], [])


def test_sources_of_an_ode_net_agree_where_it_is_solved_well_and_not_where_it_is_not(oon, test_digits):
    some = test_digits[:16]

    def slopes_of(sources):
        found = {}
        for name, source in sources.items():
            images = some.images.clone().requires_grad_(True)
            found[name] = torch.autograd.grad(source(images).logsumexp(1).sum(), images)[0].flatten(1)
        return found

    well = slopes_of(ode_sources(oon.at(1e-4), tight=1e-5, step=0.05))
    assert list(well) == ["own", "tight", "exact", "adjoint", "tight adjoint", "fixed steps"]
    for one, other in itertools.combinations(well, 2):
        assert not torch.equal(well[one], well[other]), f"{one} is {other}"
    for name, slope in well.items():
        cosine = torch.nn.functional.cosine_similarity(slope, well["tight"])
        assert cosine.median() > 0.75, name
    # What a knowing attacker gains by solving better than the net itself does.
    loose = slopes_of(ode_sources(oon.at(1e-1), tight=1e-4))
    assert torch.nn.functional.cosine_similarity(loose["own"], loose["tight"]).median() < 0.6


@pytest.mark.parametrize("tolerance", [1e-5, (1e-7, 1e-9), (1e-3, 1e-5), torch.tensor([1e-3, 1e-5])])
def test_no_source_differentiates_step_sizes_at_a_tight_tolerance(tolerance, oon):
    assert "exact" in ode_sources(oon.at(1e-3)) and "exact" not in ode_sources(oon.at(tolerance))


def test_several_sources_are_tried_together(oon, res, test_digits):
    some, net = test_digits[:16], oon.at(1e-2)
    sources = ode_sources(net)
    found = strongest(PGD(0.15, steps=3), net, some.images, some.labels, list(sources.values())[:3], ids=some.ids)
    assert found.found.success.sum() > 0 and (found.source > 0).any()
    with pytest.raises(InvalidInput, match="solves an ODE"):
        ode_sources(res)


def test_pushing_goes_on_along_the_same_line(res, test_digits):
    some = test_digits[:16]
    inner = CarliniWagner(steps=30, binary_search_steps=3, initial_constant=2.0)
    near = inner(res, some.images, some.labels, ids=some.ids)
    far = Pushed(inner, 1.2)(res, some.images, some.labels, ids=some.ids)
    both = near.success & far.success
    assert both.sum() > 8
    wanted = (some.images + 1.2 * (near.images - some.images)).clamp(0, 1)
    torch.testing.assert_close(far.images[both], wanted[both])
    margins = [res.predict(found.images[both]).margin.mean() for found in (near, far)]
    assert margins[1] > margins[0]
    assert Pushed(inner, 1.2).record()["attack"] == "CarliniWagner x 1.2"


def test_availability_costs_the_solver_more(oon, test_digits):
    some = test_digits[:16]
    net = oon.at(1e-4)
    found = Availability(0.2, steps=5)(net, some.images, some.labels, ids=some.ids)
    right = ~found.initially_wrong
    before, after = net.predict(some.images).nfe[right], net.predict(found.images).nfe[right]
    assert (after >= before).all() and after.double().mean() > 1.05 * before.double().mean()
    noisy = (some.images + 0.2 * (torch.rand(some.images.shape) - 0.5).sign()).clamp(0, 1)
    assert after.double().mean() > net.predict(noisy).nfe[right].double().mean()


def test_availability_without_a_bound_is_no_weaker_than_a_black_image(oon, test_digits):
    """The costliest image known; steps alone, without the flattened starts, must add to the clean image's cost as well."""
    some = test_digits[:8]
    attack = Availability(1.0, steps=3, grid=4)
    with pytest.raises(InvalidInput, match="search_precision: expected full"):
        Availability(1.0, search_precision="bfloat16")
    right = oon.predict(some.images).labels == some.labels
    black = oon.predict(torch.zeros_like(some.images)).nfe[right]
    found = attack(oon, some.images, some.labels).images
    assert (oon.predict(found).nfe[right] >= black).all()
    climbed = (
        oon.predict(dataclasses.replace(attack, greys=())(oon, some.images, some.labels).images).nfe[right].double()
    )
    assert climbed.mean() > 1.2 * oon.predict(some.images).nfe[right].double().mean()


def test_the_cap_on_steps_holds_with_a_status(oon, test_digits):
    """An image that the cap stops is worth most to this attack, and is an abstention, not a success."""
    some = test_digits[:16]
    net = oon.at(1e-4)
    most = int(net.predict(some.images).nfe.max())
    capped = net.at(max_steps=int(net.predict(some.images).accepted.max()) + 1)
    assert capped.predict(some.images).answered.all()
    found = Availability(0.3, steps=5)(capped, some.images, some.labels, ids=some.ids)
    stopped = found.status == Status.MAX_STEPS
    assert stopped.any() and not found.success[stopped].any()
    assert capped.predict(found.images).nfe.max() <= most + 12


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_effort_foretells_the_steps_and_has_their_gradient(tolerance):
    net, images = small_ode_net(), pictures(24)
    net = net.at(tolerance)
    said, effort = net.predict(images), net.effort(images, grid=8).detach()
    steps = (said.accepted + said.rejected).double()
    assert torch.corrcoef(torch.stack([steps, effort]))[0, 1] > 0.6
    assert (effort < steps).all() and (effort > 0.2 * steps).all()
    some = images[:2].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x: net.effort(x, grid=2), some, eps=1e-7, atol=1e-4, nondet_tol=0, fast_mode=True
    )


def test_effort_of_a_linear_field_is_known():
    """For dy/dt = -k y the local error of a step is (k h)^5 times a constant: the estimate grows in proportion to k."""
    rate = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)

    def field(t, y):
        return -rate[:, None] * y

    y0 = torch.ones(3, 1, dtype=torch.float64)
    found = effort(field, y0, 0.0, 0.1, tolerance=(1e-12, 1e-6), grid=1)
    torch.testing.assert_close(found[1:] / found[:-1], torch.full((2,), 2.0, dtype=torch.float64), rtol=0.05, atol=0)
    finer = effort(field, y0, 0.0, 0.1, tolerance=(1e-12, 1e-6 / 32), grid=1)
    torch.testing.assert_close(finer / found, torch.full((3,), 2.0, dtype=torch.float64), rtol=1e-4, atol=0)
    with pytest.raises(InvalidInput, match="adaptive"):
        effort(field, y0, method="rk4")
