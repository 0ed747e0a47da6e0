"""The solver at the edges of what numbers, norms, times and fields can be."""

import inspect
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchdiffeq import odeint

import odefend
from odefend.errors import InvalidInput
from odefend.solver import METHODS, Status, solve
from odefend.solver.problem import LOOK_EVERY

ADAPTIVE = [name for name, tableau in METHODS.items() if tableau.adaptive]
DTYPES = st.sampled_from([torch.float32, torch.float64])
ENDS = ["interpolate", "clip"]


def root_mean_square(error):
    """A norm whose derivative at 0 is infinite."""
    return error.flatten(1).square().mean(1).sqrt().double()


def largest_part(error):
    """The norm of the larger half."""
    one, other = error.flatten(1).tensor_split(2, 1)
    return torch.maximum(root_mean_square(one), root_mean_square(other))


# Gradients where a norm is 0


@pytest.mark.parametrize("norm", [root_mean_square, largest_part])
@pytest.mark.parametrize("mode", ["torchdiffeq", "exact", "unrolled", "checkpoint"])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_a_field_of_zero_has_the_gradient_of_its_solution(mode, norm, start):
    """y' = w y at w = 0: dy(1)/dy(0) = 1, dy(1)/dw = y(0), beside a sample with a field that is not zero."""
    y0 = torch.tensor([[start, start], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    rate = torch.tensor([[0.0], [0.7]], dtype=torch.float64, requires_grad=True)
    found = solve(lambda t, y, w: w * y, y0, args=(rate,), gradient=mode, norm=norm, tolerance=1e-6)
    of_start, of_rate = torch.autograd.grad(found.y.sum(), [y0, rate])
    growth = torch.tensor([[1.0], [math.exp(0.7)]], dtype=torch.float64)
    torch.testing.assert_close(of_start, growth.expand(2, 2), rtol=1e-4, atol=0)
    torch.testing.assert_close(of_rate, growth * y0.detach().sum(1, keepdim=True), rtol=1e-4, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from(["torchdiffeq", "exact"]), DTYPES)
def test_gradients_of_fields_that_rest_in_places_are_finite(seed, count, mode, dtype):
    """Samples, and parts of samples, that start at 0 or do not move."""
    generator = torch.Generator().manual_seed(seed)
    y0, rate = (
        torch.randn(count, 4, generator=generator, dtype=dtype)
        * (torch.rand(count, 4, generator=generator) < 0.4)
        * (torch.rand(count, 1, generator=generator) < 0.6)
        for _ in range(2)
    )
    y0, rate = y0.requires_grad_(), rate.requires_grad_()
    found = solve(lambda t, y, k: k * y, y0, args=(rate,), gradient=mode, norm=root_mean_square)
    for gradient in torch.autograd.grad(found.y.sum(), [y0, rate]):
        assert torch.isfinite(gradient).all()


class Resting(nn.Module):
    """A net with a zero-initialised last layer in its field, of a state of two parts, by torchdiffeq."""

    def __init__(self):
        super().__init__()
        self.last, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def field(self, t, state):
        y, cost = state
        return self.last(torch.tanh(y)), torch.zeros_like(cost)

    def forward(self, images):
        y = images.flatten(1)
        y, _ = odeint(self.field, (y, torch.zeros(len(y), 1)), torch.tensor([0.0, 1.0]), rtol=1e-3, atol=1e-3)
        return self.head(y[-1])


def test_an_adapted_net_with_a_zero_layer_can_be_trained():
    module, images = Resting(), torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))

    def gradients(classify):
        return torch.autograd.grad(classify(images).square().sum(), list(module.parameters()))

    for one, other in zip(gradients(odefend.adapt(module, in_channels=1, classes=2)), gradients(module), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# Numbers that overflow


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("every", [1, 3])
def test_a_state_that_overflows_is_non_finite(method, end, every, monkeypatch):
    """A straight line to infinity beside one that stays; also where the host looks at every third step only."""
    monkeypatch.setitem(LOOK_EVERY, "cpu", every)
    y0 = torch.tensor([[3e38, 3e38], [1.0, 1.0]])
    found = solve(lambda t, y, slope: slope.expand_as(y), y0, args=(y0[:, :1],), method=method, end=end, max_steps=100)
    assert [Status(code).name for code in found.status.tolist()] == ["NON_FINITE", "SUCCESS"]
    assert torch.isfinite(found.y).all() and (found.y[0] >= 3e38).all()
    torch.testing.assert_close(found.y[1], torch.full((2,), 2.0))


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-3.4e38, 3.4e38),
    st.floats(-3.4e38, 3.4e38),
    st.sampled_from(sorted(METHODS)),
    st.sampled_from(ENDS),
    st.sampled_from([1e-6, 1e-3, 1e3]),
    st.sampled_from([1, 3]),
)
def test_what_succeeds_is_finite_and_right(start, slope, method, end, tolerance, every):
    """Straight lines up to the largest numbers: right where they are told, and never told where they overflow."""
    y0, times = torch.tensor([[start]]), None if every > 1 else [0.1, 0.5, 0.99]
    step = None if METHODS[method].adaptive else 0.25
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LOOK_EVERY, "cpu", every)
        found = solve(
            lambda t, y: torch.full_like(y, slope),
            y0,
            method=method,
            step=step,
            end=end,
            tolerance=tolerance,
            times=times,
            max_steps=200,
        )
    assert torch.isfinite(found.y).all() and torch.isfinite(found.path).all()
    if abs(start + slope) > 1.0001 * torch.finfo(torch.float32).max:
        assert found.status.item() != Status.SUCCESS
    if found.status.item() == Status.SUCCESS:
        size = abs(start) + abs(slope)
        for at, y in zip([*(times or []), 1.0], [*found.path[0, :, 0].tolist(), found.y.item()], strict=True):
            assert y == pytest.approx(start + at * slope, abs=1e-5 * size + 1e-30)


# Bits that do not depend on neighbours


def timed(t, y):
    return -y * t.view(-1, *[1] * (y.ndim - 1))


def turning(t, y):
    return torch.sin(3 * y + t.view(-1, *[1] * (y.ndim - 1)))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("field", [timed, turning])
def test_no_bit_of_an_answer_depends_on_the_size_of_the_batch(field, method, end):
    """33 samples at once beside the same in batches of 1, 2, 13 and 17, with states on the way."""
    for shape, dtype in (((1,), torch.float64), ((2, 3), torch.float64), ((5,), torch.float32)):
        generator = torch.Generator().manual_seed(0)
        y0 = torch.rand(33, *shape, generator=generator, dtype=torch.float64).to(dtype) * 2
        how: Any = {"method": method, "end": end, "times": [0.3, 0.8], "tolerance": 1e-2, "log": True}
        whole, parts = solve(field, y0, **how), [solve(field, part, **how) for part in y0.split([1, 2, 13, 17])]
        assert torch.equal(whole.y, torch.cat([part.y for part in parts]))
        assert torch.equal(whole.path, torch.cat([part.path for part in parts]))
        for name in ("t", "h", "error", "ratio"):
            together = torch.cat([getattr(part.log, name) for part in parts])
            assert torch.equal(getattr(whole.log, name), together), name


def test_one_image_alone_agrees_to_rounding_and_more_to_the_bit(oon, test_digits):
    images = test_digits[:48].images
    with torch.no_grad():
        whole = oon.predict(images).logits
        torch.testing.assert_close(oon.predict(images[:1]).logits, whole[:1], rtol=1e-4, atol=1e-5)
        assert torch.equal(oon.predict(images[:16]).logits, whole[:16])


# Times


@settings(max_examples=30, deadline=None)
@given(
    st.floats(-1e12, 1e12),
    st.floats(-1e12, 1e12),
    st.floats(-1e3, 1e3),
    st.floats(1e-6, 1e6),
    st.sampled_from(ADAPTIVE),
)
def test_a_clipped_solve_stays_between_its_ends(start, slope, begin, span, method):
    seen = []

    def field(t, y):
        seen.append(t.clone())
        return torch.full_like(y, slope)

    y0 = torch.tensor([[start], [start / 3]], dtype=torch.float64)
    stop = torch.tensor([begin + span, begin - span], dtype=torch.float64)
    solve(field, y0, begin, stop, end="clip", method=method, max_steps=20)
    for t in seen:
        assert (t.min() - stop[1]) >= -1e-12 * (abs(begin) + span)
        assert (t.max() - stop[0]) <= 1e-12 * (abs(begin) + span)


HUGE = st.sampled_from([0.0, 1.0, -1.0, 1e-300, -1e-20, 1e10, 1e20, -1e20, 1e40, -1e50])


@settings(max_examples=30, deadline=None)
@given(HUGE, HUGE, st.sampled_from(ADAPTIVE), st.sampled_from(ENDS))
def test_however_long_a_solve_is_it_begins(begin, stop, method, end):
    """What rests arrives; what cannot be followed so far has been tried."""
    y0 = torch.ones(1, 2, dtype=torch.float64)
    rest = solve(lambda t, y: 0 * y, y0, begin, stop, method=method, end=end)
    assert rest.status.item() == Status.SUCCESS and torch.equal(rest.y, y0)
    move = solve(lambda t, y: -y, y0, begin, stop, method=method, end=end, max_steps=20)
    assert begin == stop or (move.stats.accepted + move.stats.rejected).item() > 0
    assert torch.isfinite(move.y).all()


# Fields that are not pure functions


class Overwriting(nn.Module):
    """-y, or what is asked for, written into one place for each size of the batch."""

    def __init__(self, how):
        super().__init__()
        self.how, self.places = how, {}

    def forward(self, t, y):
        buffer = self.places.setdefault(len(y), torch.empty_like(y))
        if self.how == "out":
            return torch.neg(y, out=buffer)
        if self.how == "views":
            return buffer.copy_(-y)[:]
        return torch.from_numpy(buffer.copy_(-y).numpy())


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("how", ["out", "views", "numpy"])
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_a_field_may_write_its_answers_into_one_place(method, how, count):
    steps: Any = {"method": method, "step": None if METHODS[method].adaptive else 0.3}
    y0 = torch.linspace(0.1, 4, 2 * count, dtype=torch.float64).view(count, 2)
    with torch.no_grad():
        found, expected = solve(Overwriting(how), y0, **steps), solve(lambda t, y: -y, y0, **steps)
    assert torch.equal(found.y, expected.y) and torch.equal(found.stats.nfe, expected.stats.nfe)


@pytest.mark.parametrize("mode", ["unrolled", "exact", "torchdiffeq", "checkpoint"])
def test_a_field_may_give_the_same_tensor_again(mode):
    slope = torch.tensor([[2.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    y0 = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    found = solve(lambda t, y: slope, y0, gradient=mode)
    torch.testing.assert_close(found.y, slope.detach())
    for gradient in torch.autograd.grad(found.y.sum(), [y0, slope]):
        torch.testing.assert_close(gradient, torch.ones(2, 1, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_a_field_that_changes_its_state_in_place_is_refused(method, count):
    step = None if METHODS[method].adaptive else 0.3
    with torch.no_grad(), pytest.raises(InvalidInput, match=r"f: .* changed in place.*inplace=True"):
        solve(lambda t, y: y.relu_(), torch.ones(count, 2), method=method, step=step)


@pytest.mark.parametrize("state", [(torch.ones(1, 1),), [1.0], 1.0, None])
def test_a_state_that_is_no_tensor_is_refused(state):
    with pytest.raises(InvalidInput, match=r"y0: expected a tensor \(batch, \.\.\.\), got a"):
        inspect.unwrap(solve)(lambda t, y: y, state)  # without the types that only tests check
