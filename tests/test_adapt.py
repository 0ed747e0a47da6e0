"""Modules written for torchdiffeq, solved by odefend's solver, against torchdiffeq itself."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import nn
from torchdiffeq import odeint
from torchdiffeq import odeint_adjoint as odeint_with_adjoint

import odefend
from odefend.errors import InvalidInput, UnknownName
from odefend.solver import Status

SIZE = 8
"""Images are 8x8 and batches have 8 rows in places: times of shape (8,) then broadcast along the width."""


class ConcatConv(nn.Module):
    """The usual field: the time as one more channel, made by multiplying with ones."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv1 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.norm = nn.GroupNorm(2, channels)
        self.nfe = 0

    def forward(self, t, x):
        self.nfe += 1
        time = torch.ones_like(x[:, :1]) * t
        x = self.conv1(torch.cat([time, torch.tanh(self.norm(x))], 1))
        return self.conv2(torch.cat([time, torch.tanh(x)], 1)) * 3


class ByModuleAttribute(nn.Module):
    """Calls torchdiffeq.odeint, twice, at several times."""

    def __init__(self):
        super().__init__()
        self.stem, self.field1, self.field2 = nn.Conv2d(1, 4, 3, padding=1), ConcatConv(), ConcatConv()
        self.head = nn.Linear(4, 3)
        self.tolerance = 1e-3

    def forward(self, images):
        options = {"rtol": self.tolerance, "atol": self.tolerance, "method": "dopri5"}
        times = torch.tensor([0.0, 0.4, 1.0]).to(images)
        path: Any = torchdiffeq.odeint(self.field1, self.stem(images), times, **options)
        back: Any = torchdiffeq.odeint(self.field2, path[1] + path[2], times.flip(0), **options)
        return self.head(back[-1].mean((2, 3)))


class ByName(nn.Module):
    """Has imported odeint by name and leaves the method to its default; its field gates the state by the scalar time."""

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.gate = nn.Linear(SIZE, SIZE), nn.Linear(1, SIZE)

        def forward(self, t, x):
            return torch.tanh(self.layer(x)) * 4 * torch.sigmoid(self.gate(t.view(1, 1)))

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(SIZE * SIZE, SIZE), nn.Linear(SIZE, 3)
        self.field: Any = self.Field()
        self.tolerance = 1e-3

    def forward(self, images):
        start = self.stem(images.flatten(1))
        end = odeint(self.field, start, torch.tensor([0.0, 1.0]).to(images), rtol=self.tolerance, atol=self.tolerance)[
            1
        ]
        return self.head(end)


class ByAdjointOfATuple(nn.Module):
    """Integrates a state with its kinetic energy, by the adjoint."""

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(SIZE, SIZE)

        def forward(self, t, state):
            x, _ = state
            slope = torch.tanh(self.layer(x)) * 3 * torch.cos(2 * t)
            return slope, slope.square().sum(1, keepdim=True)

    def __init__(self):
        super().__init__()
        self.stem, self.field, self.head = nn.Linear(SIZE * SIZE, SIZE), self.Field(), nn.Linear(SIZE + 1, 3)
        self.tolerance = 1e-3

    def forward(self, images):
        start = self.stem(images.flatten(1))
        times = torch.tensor([0.0, 1.0]).to(images)
        pair = (start, torch.zeros_like(start[:, :1]))
        # Without a method, as most users write it.
        x, energy = odeint_with_adjoint(
            self.field, pair, times, rtol=self.tolerance, atol=self.tolerance, adjoint_rtol=self.tolerance / 10
        )
        return self.head(torch.cat([x[1], energy[1]], 1))


STYLES = (ByModuleAttribute, ByName, ByAdjointOfATuple)


def built(style) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return style().double().eval()


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
    if style is not ByAdjointOfATuple:  # which asks for two tolerances
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


@pytest.mark.parametrize("style", [ByModuleAttribute, ByName])
@pytest.mark.parametrize("count", [2, 3, 8])
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
        (ByAdjointOfATuple, ["together"], ["batch"]),
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


def test_a_field_whose_rows_depend_on_each_other_shares_its_steps():
    module = built(ByName)
    module.field.layer = nn.Sequential(module.field.layer, nn.BatchNorm1d(SIZE).double().train())
    net = odefend.adapt(module, in_channels=1, classes=3)
    net.predict(pictures(5))
    assert net.calls[0].coupling == "batch"


class Fixed(nn.Module):
    def __init__(self, method, **options):
        super().__init__()
        self.head, self.how = nn.Linear(SIZE * SIZE, 3), {"method": method, "options": options or None}

    def forward(self, images):
        def field(t, x):
            return torch.sin(x * 3 + t)

        start, times = images.flatten(1), torch.tensor([0.0, 0.5, 1.0]).to(images)
        return self.head(odeint(field, start, times, rtol=1e-3, atol=1e-3, **self.how)[-1])


@pytest.mark.parametrize(
    ("method", "options"), [("euler", {}), ("midpoint", {"step_size": 0.1}), ("rk4", {"step_size": 0.1})]
)
def test_fixed_steps_are_those_of_torchdiffeq(method, options):
    module, images = Fixed(method, **options).double(), pictures(3)
    net = odefend.adapt(module, in_channels=1, classes=3)
    torch.testing.assert_close(net(images), module(images), rtol=1e-9, atol=1e-12)


def test_wrong_use_says_what_was_expected():
    images = pictures(2)
    with pytest.raises(InvalidInput, match="called neither"):
        odefend.adapt(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double(), in_channels=1, classes=3).predict(images)
    with pytest.raises(InvalidInput, match=r"logits of shape \(2, 4\), got \(2, 3\)"):
        odefend.adapt(built(ByName), in_channels=1, classes=4).predict(images)
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


class LearnedEnd(nn.Module):
    def __init__(self):
        super().__init__()
        self.end, self.head = nn.Parameter(torch.ones(1)), nn.Linear(SIZE * SIZE, 3)

    def forward(self, images):
        times = torch.cat([torch.zeros_like(self.end), self.end])
        path: Any = odeint(lambda t, y: -y, images.flatten(1), times)
        return self.head(path[-1])


class Closure(nn.Module):
    """Its field is a lambda, whose parameters nobody can see."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(SIZE * SIZE, SIZE * SIZE), nn.Linear(SIZE * SIZE, 3)

    def forward(self, images):
        times = torch.tensor([0.0, 1.0]).to(images)
        path: Any = odeint(lambda t, y: torch.tanh(self.layer(y)), images.flatten(1), times, rtol=1e-3, atol=1e-3)
        return self.head(path[-1])


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
    net.predict(pictures(4))
    assert net.calls[0].coupling == "batch"


class TwoSolves(nn.Module):
    """The first solve explodes for bright images."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(SIZE * SIZE, 3)

    def forward(self, images):
        times = torch.tensor([0.0, 1.0]).to(images)
        first: Any = odeint(lambda t, y: 4 * y**2, images.flatten(1), times)
        second: Any = odeint(lambda t, y: -y, images.flatten(1), times)
        return self.head(first[-1].clamp(-1, 1) + second[-1])


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
