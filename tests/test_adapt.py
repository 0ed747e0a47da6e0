"""Modules written for torchdiffeq, solved by odefend's solver, against torchdiffeq itself."""

import copy
import inspect
import pickle
import warnings
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import nn
from torchdiffeq._impl.rk_common import RKAdaptiveStepsizeODESolver
from torchdiffeq_nets import (
    SIZE,
    ByAdjointOfATuple,
    ByModuleAttribute,
    ByName,
    ByTupleBackwards,
    Closure,
    Fixed,
    LearnedEnd,
    OfNeighbours,
    OfTwice,
    TwoSolves,
    by_arguments,
)

import odefend
from odefend.errors import InvalidInput, UnknownName
from odefend.models import TwoLogits, carry
from odefend.models.redirect import install
from odefend.solver import METHODS, Status, solve

entry: Any = import_module("torchdiffeq._impl.odeint")

STYLES = (ByModuleAttribute, ByName, ByAdjointOfATuple)


def augmented() -> nn.Module:
    return by_arguments(augment=1)


def with_adjoint() -> nn.Module:
    return by_arguments(adjoint=True, method="bosh3")


def built(style, *args, **how) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return style(*args, **how).double().eval()


def adapted(style, *args, **how):
    return odefend.adapt(built(style, *args, **how), in_channels=1, classes=3)


def pictures(count):
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(net, module, images, weights):
    images = images.clone().requires_grad_()
    logits = net(images)
    return logits, torch.autograd.grad((logits * weights).sum(), [images, *module.parameters()])


@pytest.mark.parametrize("tolerance", [1e-5, 1e-3, 1e-1])
@pytest.mark.parametrize("style", STYLES)
def test_equals_torchdiffeq_at_batch_1_with_gradients(style, tolerance):
    module, images = built(style), pictures(4)
    net = odefend.adapt(module, in_channels=1, classes=3)
    module.tolerance = tolerance
    if style is ByAdjointOfATuple:  # which asks for two tolerances; torchdiffeq's adjoint is that of a batch
        net = net.at(coupling="batch", gradient="adjoint")
    else:
        net, module.tolerance = net.at(tolerance), 0.3
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    for image in images:
        asked, module.tolerance = module.tolerance, tolerance
        theirs, expected = gradients(module, module, image[None], weights)
        module.tolerance = asked
        ours, found = gradients(net, module, image[None], weights)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("style", [augmented, ByTupleBackwards])
def test_the_other_ways_of_writing_a_net_equal_torchdiffeq(style):
    """(bosh3's interpolant is another on purpose: see solver/methods.py.)"""
    net, images = adapted(style), pictures(2)
    for image in images:
        torch.testing.assert_close(net(image[None]), net.module(image[None]), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("style", [ByModuleAttribute, ByName, ByAdjointOfATuple, ByTupleBackwards, with_adjoint])
@pytest.mark.parametrize("count", [3, 8])
def test_a_batch_is_its_images_though_the_field_knows_one_time(style, count):
    net, images = odefend.adapt(built(style), in_channels=1, classes=3, tolerance=1e-4), pictures(count)
    with torch.no_grad():
        together = net.predict(images)
        alone = [net.predict(image[None]) for image in images]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]), rtol=1e-9, atol=1e-10)
    assert torch.equal(together.nfe, torch.cat([one.nfe for one in alone]))
    if style is ByModuleAttribute:  # whose fields count their calls; one image is never tried out
        fields: Any = net.module.field1, net.module.field2
        fields[0].nfe = fields[1].nfe = 0
        assert net.predict(images[:1]).nfe == fields[0].nfe + fields[1].nfe
    assert (together.status == Status.SUCCESS).all()


def test_says_how_each_field_is_called():
    for style, manners, couplings in (
        (ByModuleAttribute, ["broadcast_column"] * 2, ["sample"] * 2),
        (ByName, ["vmap"], ["sample"]),
        (ByAdjointOfATuple, ["broadcast_column"], ["sample"]),
    ):
        net = odefend.adapt(built(style), in_channels=1, classes=3)
        net.predict(pictures(8))
        assert [call.times for call in net.calls] == manners
        assert [call.coupling for call in net.calls] == couplings


def test_nothing_chosen_is_what_the_module_asks_for():
    module = built(ByName)
    module.tolerance = 1e-2
    net, image = odefend.adapt(module, in_channels=1, classes=3), pictures(1)
    torch.testing.assert_close(net(image), module(image), rtol=1e-9, atol=1e-12)
    assert net.calls[0].gradient == "torchdiffeq" and net.calls[0].method == "dopri5"
    assert net.at(1e-8).predict(image).nfe > net.predict(image).nfe


def test_outside_an_adapted_net_torchdiffeq_is_itself():
    module, image = built(ByModuleAttribute), pictures(1)
    net = odefend.adapt(module, in_channels=1, classes=3, tolerance=1e-1)
    before = module(image)
    net.predict(image)
    assert torch.equal(module(image), before)
    assert not torch.equal(net(image), before)


def test_views_tolerances_and_attacks():
    net, images = odefend.adapt(built(ByName), in_channels=1, classes=3), pictures(3)
    tolerances = torch.tensor([1e-1, 1e-5, 1e-9], dtype=torch.float64)
    view = net.at(tolerances)
    nfe = view.predict(images).nfe
    assert nfe[0] < nfe[1] < nfe[2]
    assert view.rows(torch.tensor([2])).predict(images[2:]).nfe == nfe[2]
    found = odefend.PGD(norm=odefend.LINF, epsilon=0.3, steps=5)(net.at(1e-3), images, net.predict(images).labels)
    assert found.success.any() or (found.distance > 0).any()


@pytest.mark.parametrize(
    ("style", "why"),
    [(OfNeighbours, "another slope among others than alone"), (OfTwice, r"state of shape \(10, 64\), for 5 images")],
)
def test_images_that_depend_on_each_other_share_their_steps_where_that_is_chosen(style, why):
    net, images = adapted(style), pictures(5)
    with pytest.raises(InvalidInput, match=why + r"(.|\n)*choose coupling='batch'"):
        net.predict(images)
    whole = net.at(coupling="batch")
    torch.testing.assert_close(whole(images), net.module(images), rtol=1e-9, atol=1e-10)
    assert whole.calls[0].coupling == "batch"
    with pytest.raises(InvalidInput, match=r"tolerance: expected one for all images(.|\n)*one image at a time"):
        whole.at(torch.full((5,), 1e-3)).predict(images)


def test_a_norm_of_its_own_is_of_the_whole_batch():
    net, images = adapted(by_arguments, method="dopri5", options={"norm": lambda error: error.abs().max()}), pictures(3)
    with pytest.raises(InvalidInput, match="has a norm of its own, for 3 images"):
        net.predict(images)
    torch.testing.assert_close(net.at(coupling="batch")(images), net.module(images), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("method", "options"), [("euler", {}), ("midpoint", {"step_size": 0.1}), ("rk4", {"step_size": 0.1})]
)
def test_fixed_steps_are_those_of_torchdiffeq(method, options):
    module, images = Fixed(method, **options).double(), pictures(3)
    net = odefend.adapt(module, in_channels=1, classes=3)
    torch.testing.assert_close(net(images), module(images), rtol=1e-9, atol=1e-12)


def test_the_bound_on_steps_is_the_modules_own():
    net, image = adapted(by_arguments), pictures(1)
    attempts = int((said := net.predict(image)).accepted + said.rejected)
    enough = adapted(by_arguments, method="dopri5", options={"max_num_steps": attempts})
    assert torch.equal(enough(image), net(image)) and enough.module(image).isfinite().all()
    less = adapted(by_arguments, method="dopri5", options={"max_num_steps": attempts - 1})
    assert less.predict(image).status == Status.MAX_STEPS
    with pytest.raises(AssertionError, match="max_num_steps exceeded"):
        less.module(image)
    assert less.at(max_steps=attempts).predict(image).answered


def test_without_a_bound_of_its_own_a_module_has_torchdiffeqs(monkeypatch):
    bounds = []

    def watched(*args, max_steps, **how):
        bounds.append(max_steps)
        return solve(*args, max_steps=max_steps, **how)

    monkeypatch.setattr(carry, "solve", watched)
    for how in ({}, {"method": "rk4"}, {"method": "dopri5", "options": {"max_num_steps": 50}}):
        adapted(by_arguments, **how).predict(pictures(1))
    theirs = inspect.signature(RKAdaptiveStepsizeODESolver).parameters["max_num_steps"].default
    assert bounds == [theirs, theirs, 50]


@pytest.mark.parametrize("method", ["euler", "dopri5"])
def test_one_requested_time_is_where_it_begins(method):
    class Still(nn.Module):
        def forward(self, images):
            path: Any = entry.odeint(lambda t, x: x, images.flatten(1), torch.zeros(1), method=method)
            return path[0][:, :3]

    images = pictures(2)
    assert torch.equal(odefend.adapt(Still(), in_channels=1, classes=3)(images), images.flatten(1)[:, :3])


class _Tsit5(RKAdaptiveStepsizeODESolver):
    """torchdiffeq's solver with the table of Tsitouras, as its versions after 0.2.5 have it."""

    order, _table = 5, METHODS["tsit5"]
    tableau: Any = SimpleNamespace(
        alpha=torch.tensor(_table.c[1:], dtype=torch.float64),
        beta=[torch.tensor(row, dtype=torch.float64) for row in _table.a[1:]],
        c_sol=torch.tensor([*_table.a[-1], 0.0], dtype=torch.float64),
        c_error=torch.tensor(_table.error, dtype=torch.float64),
    )
    mid = torch.tensor(_table.middle, dtype=torch.float64)


def test_tsit5_is_here_as_well(monkeypatch):
    install()
    monkeypatch.setitem(entry.SOLVERS, "tsit5", _Tsit5)
    net, image = adapted(by_arguments, method="tsit5"), pictures(1)
    torch.testing.assert_close(net(image), net.module(image), rtol=1e-9, atol=1e-10)
    assert net.calls[0].method == "tsit5"


def test_an_older_torchdiffeq_is_told_by_its_version(monkeypatch):
    monkeypatch.setattr(entry, "SOLVERS", {"dopri5": object})
    found = torchdiffeq.__version__
    with pytest.raises(InvalidInput, match=rf"expected version 0\.2\.4 or newer, got {found}\. pip install --upgrade"):
        install.__wrapped__()


def test_adjoint_gradients_come_with_advice():
    net, images = adapted(with_adjoint), pictures(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.predict(images)
        net.at(gradient="adjoint").predict(images.clone().requires_grad_())
        adapted(augmented).predict(images.clone().requires_grad_())
    with pytest.warns(UserWarning, match=r"several times as long(.|\n)*gradient='unrolled'"):
        net.predict(images.clone().requires_grad_())


@pytest.mark.parametrize(
    ("head", "classes", "found", "way_out"),
    [
        (nn.Linear(3, 1), 2, r"\(2, 1\)", "TwoLogits"),
        (nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), 2, r"\(2,\)", "TwoLogits"),
        (nn.Identity(), 4, r"\(2, 3\)", "classes=3"),
        (nn.Unflatten(1, (3, 1)), 3, r"\(2, 3, 1\)", "forward gives the logits alone"),
        (nn.LSTM(3, 3), 3, "tuple", "forward gives the logits alone"),
    ],
)
def test_other_outputs_than_logits_are_told_a_way_out(head, classes, found, way_out):
    net = odefend.adapt(nn.Sequential(built(by_arguments), head).double(), in_channels=1, classes=classes)
    with pytest.raises(InvalidInput, match=rf"logits of shape \(2, {classes}\), got {found}(.|\n)*{way_out}"):
        net.predict(pictures(2))


def test_one_logit_stands_for_two():
    for head in (nn.Linear(3, 1), nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))):
        module, images = nn.Sequential(built(by_arguments), head).double(), pictures(4)
        net = odefend.adapt(nn.Sequential(module, TwoLogits()), in_channels=1, classes=2, tolerance=1e-9)
        assert torch.equal(net.predict(images).labels, (module(images) > 0).flatten().long())


def test_what_steers_the_steps_is_refused():
    images = pictures(2)
    module = built(by_arguments)
    module[1].field.callback_accept_step = lambda *_: None
    with pytest.raises(
        InvalidInput, match=r"callback_accept_step: expected a field without callbacks(.|\n)*ConcatConv"
    ):
        odefend.adapt(module, in_channels=1, classes=3).predict(images)
    module = built(by_arguments, adjoint=True)
    module[1].field.callback_step_adjoint = lambda *_: None
    with pytest.raises(InvalidInput, match="callback_step_adjoint: expected a field without"):
        odefend.adapt(module, in_channels=1, classes=3).predict(images)
    module[1].solve = entry.odeint  # which has no use for it
    assert odefend.adapt(module, in_channels=1, classes=3).predict(images).answered.all()
    with pytest.raises(InvalidInput, match="adjoint_options: expected the options of the forward solve"):
        adapted(by_arguments, adjoint=True, method="rk4", adjoint_options={"step_size": 0.1}).predict(images)
    with pytest.raises(InvalidInput, match=r"got min_step. Leave it out"):
        adapted(by_arguments, method="dopri5", options={"min_step": 0.1}).predict(images)


def test_an_end_time_takes_the_place_of_the_last_one_asked_for():
    module, images = built(Fixed, "rk4", step_size=0.1), pictures(3)
    net = odefend.adapt(module, in_channels=1, classes=3)
    module.end = 2.5
    expected = module(images)
    module.end = 1.0
    torch.testing.assert_close(net.at(t1=2.5)(images), expected, rtol=1e-9, atol=1e-12)
    ends = torch.tensor([0.7, 2.5, 1.0], dtype=torch.float64)
    each = net.at(t1=ends)
    for row, end in enumerate(ends.tolist()):
        torch.testing.assert_close(each(images)[row], net.at(t1=end)(images)[row], rtol=1e-9, atol=1e-12)
    assert torch.equal(each.rows(torch.tensor([1]))(images[1:2]), net.at(t1=2.5)(images[1:2]))
    with pytest.raises(InvalidInput, match=r"t1: expected a module whose solves(.|\n)*asks for one at 0.5"):
        net.at(t1=0.4).predict(images)
    with pytest.raises(InvalidInput, match="t1: expected a module that solves forwards"):
        adapted(ByTupleBackwards).at(t1=2.0).predict(images)


def test_how_a_field_is_called_is_found_out_in_full_precision():
    """In bfloat16 a convolution of one image and of three may differ as much as two ways of calling."""
    net, images = adapted(ByModuleAttribute), pictures(3).float()
    net.module.float()
    with torch.autocast("cpu", torch.bfloat16):
        net.predict(images)
    assert {(call.times, call.coupling) for call in net.calls} == {("broadcast_column", "sample")}


def test_wrong_use_says_what_was_expected():
    images = pictures(2)
    with pytest.raises(InvalidInput, match=r"called neither(.|\n)*odefend.ODENet"):
        odefend.adapt(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double(), in_channels=1, classes=3).predict(images)
    with pytest.raises(InvalidInput, match=r"expected one of dopri5.*got dopri8"):
        odefend.adapt(Fixed("dopri8").double(), in_channels=1, classes=3).predict(images)
    with pytest.raises(InvalidInput, match="got first_step"):
        odefend.adapt(Fixed("dopri5", first_step=0.1).double(), in_channels=1, classes=3).predict(images)
    with pytest.raises(UnknownName, match="Did you mean 'tolerance'"):
        odefend.adapt(built(ByName), in_channels=1, classes=3, tolerence=1e-3)
    with pytest.raises(InvalidInput, match="positive finite"):
        odefend.adapt(built(ByName), in_channels=1, classes=3).at(-1.0)
    with pytest.raises(InvalidInput, match="takes fixed steps"):
        odefend.adapt(Fixed("rk4", step_size=0.1).double(), in_channels=1, classes=3).at(1e-3).predict(images)
    with pytest.raises(InvalidInput, match="on the grid of step_size"):
        odefend.adapt(Fixed("euler", step_size=0.3).double(), in_channels=1, classes=3).predict(images)
    with pytest.raises(InvalidInput, match="positive step size"):
        odefend.adapt(Fixed("euler", step_size=0.0).double(), in_channels=1, classes=3).predict(images)
    with pytest.raises(InvalidInput, match="times are not differentiated"):
        odefend.adapt(LearnedEnd().double(), in_channels=1, classes=3).predict(images)
    with pytest.raises(InvalidInput, match="all its parameters registered"):
        net = odefend.adapt(Closure().double(), in_channels=1, classes=3, gradient="adjoint")
        net.predict(images.clone().requires_grad_())


def test_gradients_of_what_a_lambda_uses():
    module, images = Closure().double(), pictures(2)
    net = odefend.adapt(module, in_channels=1, classes=3)
    _, found = gradients(net, module, images[:1], 1.0)
    _, expected = gradients(module, module, images[:1], 1.0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_black_images_and_training_mode_do_not_decide_for_later_ones():
    """On states of zeros every way of calling a field agrees; the mode decides whether rows depend on each other."""
    module = built(ByName)
    module.stem = nn.Flatten()
    field: Any = ByName.Field()
    field.layer, field.gate, module.head = nn.Linear(64, 64, bias=False), nn.Linear(1, 64), nn.Linear(64, 3)
    module.field = field
    module.double()
    net = odefend.adapt(module, in_channels=1, classes=3)
    net.predict(torch.zeros(3, 1, SIZE, SIZE, dtype=torch.float64))
    assert net.calls[0].times == "vmap"
    norm = nn.BatchNorm1d(64).double().eval()
    field.layer = nn.Sequential(field.layer, norm)
    net.predict(pictures(4))
    assert net.calls[0].coupling == "sample"
    norm.train()
    with pytest.raises(InvalidInput, match="another slope among others"):
        net.predict(pictures(4))


def test_an_image_that_fails_in_one_of_two_solves_has_failed():
    images = torch.stack([torch.full((1, SIZE, SIZE), value, dtype=torch.float64) for value in (0.01, 1.0)])
    net = odefend.adapt(TwoSolves().double().eval(), in_channels=1, classes=3, tolerance=1e-4)
    said = net.predict(images)
    assert said.answered.tolist() == [True, False]
    first, second = (call.solution.stats.nfe for call in net.calls)
    assert torch.equal(said.nfe, first + second)


def test_an_adapted_net_can_be_copied_and_pickled():
    net, images = odefend.adapt(built(ByModuleAttribute), in_channels=1, classes=3).at(1e-4), pictures(3)
    expected = net(images.clone().requires_grad_())
    assert net.calls[0].solution.y.grad_fn is None
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(images), expected)
