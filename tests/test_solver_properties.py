"""No sample depends on its neighbours, whatever the field, shape, tolerance, times, method and gradient mode."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odefend.solver import GRADIENTS, METHODS, Status, solve

SEEDS = st.integers(0, 10**6)
SHAPES = st.sampled_from([(1,), (3,), (2, 3), (2, 1, 4)])
METHOD = st.sampled_from(sorted(METHODS))
END = st.sampled_from(["interpolate", "clip"])


def drawn(seed, count, shape):
    """Random starts, rates (as args), tolerances and spans of time, some of them backwards."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*size):
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    y0 = torch.randn(count, *shape, generator=generator, dtype=torch.float64) * 2
    span = torch.stack([uniform(count), 1 + uniform(count)])
    span = torch.where(uniform(count) < 0.3, span.flip(0), span)
    tolerance = (10 ** (-1 - 6 * uniform(count)), 10 ** (-1 - 6 * uniform(count)))
    return y0, uniform(count, *[1] * len(shape)) * 4, span[0], span[1], tolerance


class Elementwise(torch.nn.Module):
    """A field of nothing but elementwise operations, whose rounding does not depend on the batch at all."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def forward(self, t, y, rate):
        return rate * torch.sin(self.gain * y + t.view(-1, *[1] * (y.ndim - 1))) - y * y.cos() / 3


class Mixing(torch.nn.Module):
    """A field with a matrix product over all of a sample's elements."""

    def __init__(self, size):
        super().__init__()
        generator = torch.Generator().manual_seed(size)
        self.weight = torch.nn.Parameter(torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5)

    def forward(self, t, y, rate):
        return rate * torch.tanh(y.flatten(1) @ self.weight + t.view(-1, 1)).view_as(y)


def how(method):
    return {"method": method, "step": None if METHODS[method].adaptive else 0.1, "max_steps": 3000}


def differentiated(field, y0, rate, start, stop, tolerance, mode, **settings):
    y0, rate = y0.clone().requires_grad_(), rate.clone().requires_grad_()
    found = solve(field, y0, start, stop, args=(rate,), tolerance=tolerance, gradient=mode, **settings)
    total = (found.y.sin() + found.y.square()).sum()
    return found, torch.autograd.grad(total, [y0, rate, *field.parameters()])


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 20), SHAPES, METHOD, END, st.sampled_from(GRADIENTS), st.booleans())
def test_a_batch_is_its_samples_values_and_gradients(seed, count, shape, method, end, mode, mixing):
    """Parameters' gradients are the sum over the samples; the adjoint's too, whose steps are per sample as well."""
    y0, rate, start, stop, tolerance = drawn(seed, count, shape)
    field = Mixing(math.prod(shape)) if mixing else Elementwise()
    # Heun takes thousands of steps at tight tolerances.
    tolerance = tuple(one.clamp_min(1e-4) for one in tolerance) if method == "heun" else tolerance
    settings = how(method) | {"end": end}
    found, gradients = differentiated(field, y0, rate, start, stop, tolerance, mode, **settings)
    assert (found.status == Status.SUCCESS).all()
    shared = torch.zeros_like(gradients[2])
    for i in range(count):
        one = slice(i, i + 1)
        mine = tuple(tol[one] for tol in tolerance)
        alone, own = differentiated(field, y0[one], rate[one], start[one], stop[one], mine, mode, **settings)
        for name in ("nfe", "accepted", "rejected"):
            assert torch.equal(getattr(found.stats, name)[one], getattr(alone.stats, name))
        torch.testing.assert_close(found.y[one], alone.y, rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(gradients[0][one], own[0], rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(gradients[1][one], own[1], rtol=1e-8, atol=1e-9)
        shared += own[2]
    torch.testing.assert_close(gradients[2], shared, rtol=1e-7, atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(2, 20), SHAPES, METHOD, END)
def test_permuting_the_batch_permutes_the_answer(seed, count, shape, method, end):
    y0, rate, start, stop, tolerance = drawn(seed, count, shape)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    found, gradients = differentiated(
        Elementwise(), y0, rate, start, stop, tolerance, "unrolled", end=end, **how(method)
    )
    moved = [x[order] for x in (y0, rate, start, stop)]
    tolerance = tuple(one[order] for one in tolerance)
    other, others = differentiated(Elementwise(), *moved, tolerance, "unrolled", end=end, **how(method))
    assert torch.equal(found.y[order], other.y)
    assert torch.equal(found.stats.nfe[order], other.stats.nfe)
    assert torch.equal(gradients[0][order], others[0])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 6), SHAPES, st.sampled_from(["dopri5", "tsit5", "bosh3", "rk4"]), END)
def test_forwards_then_backwards_returns(seed, count, shape, method, end):
    y0, rate, start, stop, _ = drawn(seed, count, shape)
    field, settings = Mixing(math.prod(shape)), how(method) | {"end": end, "tolerance": 1e-8, "args": (rate,)}
    settings["step"] = settings["step"] and 0.01
    there = solve(field, y0, start, stop, **settings)
    back = solve(field, there.y, stop, start, **settings)
    torch.testing.assert_close(back.y, y0, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(there.y, y0, atol=1e-2)


TROUBLES = {
    "nan": (lambda t, y: torch.where(t > 0.4, torch.nan, -y), {Status.NON_FINITE}),
    "explosion": (lambda t, y: 4 * y**2, {Status.STEP_UNDERFLOW, Status.NON_FINITE, Status.MAX_STEPS}),
    "stiffness": (lambda t, y: -1e7 * (y - torch.cos(t)), {Status.MAX_STEPS}),
    "a jump to infinity": (lambda t, y: torch.where(t > 0.4, torch.inf, -y), {Status.NON_FINITE}),
    "a broken start": (lambda t, y: -y / 0, {Status.NON_FINITE}),
}


@pytest.mark.parametrize("mode", GRADIENTS)
@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_trouble_with_one_sample_leaves_the_others_as_they_were(trouble, mode, method):
    """Values and gradients bit for bit, for an elementwise field."""
    bad, statuses = TROUBLES[trouble]
    base = Elementwise()

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.base = base

        def forward(self, t, y, rate, broken):
            time = t.view(-1, 1)
            # Twice where: else 0 * inf of the branch not taken would be the field's own fault.
            return torch.where(broken > 0, bad(time, torch.where(broken > 0, y, 1.0)), self.base(t, y, rate))

    generator = torch.Generator().manual_seed(0)
    y0 = torch.rand(6, 2, generator=generator, dtype=torch.float64) + 1
    rate = torch.rand(6, 1, generator=generator, dtype=torch.float64) * 3
    broken = torch.tensor([0, 0, 1, 0, 1, 0], dtype=torch.float64)[:, None]
    well = (broken[:, 0] == 0).nonzero()[:, 0]

    def run(rows):
        state, rates = y0[rows].clone().requires_grad_(), rate[rows].clone().requires_grad_()
        found = solve(
            Field(), state, args=(rates, broken[rows]), gradient=mode, tolerance=1e-5, max_steps=300, method=method
        )
        fine = found.status == Status.SUCCESS
        return found, torch.autograd.grad(found.y[fine].square().sum(), [state, rates, base.gain])

    (found, gradients), (alone, own) = run(torch.arange(6)), run(well)
    assert {Status(code) for code in found.status[[2, 4]].tolist()} <= statuses
    assert found.status[well].eq(Status.SUCCESS).all() and alone.status.eq(Status.SUCCESS).all()
    assert torch.isfinite(found.y).all()
    assert torch.equal(found.y[well], alone.y) and torch.equal(found.stats.nfe[well], alone.stats.nfe)
    for one, other in zip(gradients[:2], own[:2], strict=True):
        assert torch.equal(one[well], other)
        assert torch.equal(one[[2, 4]], torch.zeros_like(one[[2, 4]]))
    torch.testing.assert_close(gradients[2], own[2], rtol=1e-12, atol=0)


def test_each_trouble_has_its_name():
    """A step that no size makes small enough underflows; one that is never finite is non-finite."""

    def field(t, y, kind):
        wall = torch.where(t.view(-1, 1) > 0.5, 1e9 * torch.sign(torch.sin(1e12 * t.view(-1, 1))), 0.0)
        return torch.where(kind == 1, wall, torch.where(kind == 2, torch.where(t.view(-1, 1) > 0.5, torch.nan, y), -y))

    kinds = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    found = solve(field, torch.ones(3, 1, dtype=torch.float64), args=(kinds,), tolerance=1e-9, max_steps=10**5)
    assert [Status(code).name for code in found.status.tolist()] == ["SUCCESS", "STEP_UNDERFLOW", "NON_FINITE"]
    few = solve(field, torch.ones(3, 1, dtype=torch.float64), args=(kinds,), tolerance=1e-9, max_steps=3)
    assert few.status.tolist() == [Status.MAX_STEPS] * 3
    assert (few.stats.accepted + few.stats.rejected).tolist() == [3] * 3


NASTY = st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e300, -1e30, math.inf, -math.inf, math.nan, 5e-324])


@settings(max_examples=60, deadline=None)
@given(st.lists(NASTY, min_size=1, max_size=5), NASTY, NASTY, METHOD, END, st.sampled_from([1e-12, 1e-3, 1e3]), SEEDS)
def test_nothing_hangs_and_every_sample_is_accounted_for(starts, slope, power, method, end, tolerance, seed):
    """Any start, any constants in the field: an end within max_steps, finite states unless the start was not."""
    y0 = torch.tensor(starts, dtype=torch.float64)[:, None]

    def field(t, y):
        return slope * y * y.abs().clamp_max(1e10) + power * torch.sin(1e3 * t).view(-1, 1)

    steps = how(method) | {"max_steps": 50}
    found = solve(field, y0, 0.0, 1.0 - 2.0 * (seed % 2), tolerance=tolerance, end=end, **steps)
    assert found.status.shape == (len(starts),)
    assert ((found.stats.accepted + found.stats.rejected) <= 50).all()
    finite = torch.isfinite(y0[:, 0])
    assert torch.isfinite(found.y[finite]).all()
    assert (found.status[~finite] == Status.NON_FINITE).all()
