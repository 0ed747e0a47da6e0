"""Modules written for torchdiffeq, solved by odefend's solver, against torchdiffeq itself."""

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
        x, energy = odeint_with_adjoint(
            self.field, pair, times, rtol=self.tolerance, atol=self.tolerance, method="dopri5"
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
    net = odefend.adapt(module, in_channels=1, classes=3).at(tolerance)
    module.tolerance = tolerance
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    for image in images:
        theirs, expected = gradients(module, module, image[None], weights)
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
