"""No sample depends on its neighbours, whatever the field, shape, tolerance, times, method and gradient mode."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odefend.solver import GRADIENTS, METHODS, Status, solve
from odefend.solver.control import next_step, root
from odefend.solver.problem import LOOK_EVERY

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


def how(method) -> Any:
    return {"method": method, "step": None if METHODS[method].adaptive else 0.1, "max_steps": 3000}


def differentiated(field, y0, rate, start, stop, tolerance, mode, **settings):
    y0, rate = y0.clone().requires_grad_(), rate.clone().requires_grad_()
    found = solve(field, y0, start, stop, args=(rate,), tolerance=tolerance, gradient=mode, **settings)
    total = (found.y.sin() + found.y.square()).sum()
    return found, torch.autograd.grad(total, [y0, rate, *field.parameters()])


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 6), SHAPES, METHOD, END, st.sampled_from(GRADIENTS), st.booleans())
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
    y0, rate, start, stop = (x[order] for x in (y0, rate, start, stop))
    tolerance = tuple(one[order] for one in tolerance)
    other, others = differentiated(Elementwise(), y0, rate, start, stop, tolerance, "unrolled", end=end, **how(method))
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
            Field(), state, args=(rates, broken[rows]), gradient=mode, tolerance=1e-4, max_steps=80, method=method
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

    steps: Any = how(method) | {"max_steps": 50}
    found = solve(field, y0, 0.0, 1.0 - 2.0 * (seed % 2), tolerance=tolerance, end=end, **steps)
    assert found.status.shape == (len(starts),)
    assert ((found.stats.accepted + found.stats.rejected) <= 50).all()
    finite = torch.isfinite(y0[:, 0])
    assert torch.isfinite(found.y[finite]).all()
    assert (found.status[~finite] == Status.NON_FINITE).all()


def test_not_looking_at_every_step_changes_no_bit(monkeypatch):
    """The loop for devices that should not be waited for, beside the plain one, on well-behaved and broken samples."""

    def field(t, y, kind):
        tame = torch.sin(3 * y + t.view(-1, 1)) * (1 + kind)
        return torch.where((kind == 5) & (t.view(-1, 1) > 0.4), torch.nan, torch.where(kind == 6, 40 * y**2, tame))

    kinds = torch.arange(8, dtype=torch.float64)[:, None]
    y0 = torch.linspace(0.1, 4, 16, dtype=torch.float64).view(8, 2)
    y0[7, 1] = torch.inf
    stop = torch.linspace(0, 2, 8, dtype=torch.float64)
    for method in METHODS:
        for end in ("interpolate", "clip"):
            tolerance, few = 1e-2 if method == "heun" else 1e-4, how(method) | {"max_steps": 150}

            def run(end=end, tolerance=tolerance, few=few):
                with torch.no_grad():
                    return solve(field, y0, 0.0, stop, args=(kinds,), tolerance=tolerance, end=end, **few)

            plain = run()
            for every in (2, 5):
                monkeypatch.setitem(LOOK_EVERY, "cpu", every)
                deferred = run()
                monkeypatch.delitem(LOOK_EVERY, "cpu")
                assert torch.equal(plain.y.nan_to_num(), deferred.y.nan_to_num())
                assert torch.equal(plain.status, deferred.status)
                for name in ("nfe", "accepted", "rejected"):
                    assert torch.equal(getattr(plain.stats, name), getattr(deferred.stats, name))
            assert plain.status.unique().numel() > 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; this machine has none")
@pytest.mark.parametrize("mode", GRADIENTS)
def test_cuda_agrees_with_the_cpu(mode):
    y0, rate, start, stop, tolerance = drawn(3, 20, (2, 3))
    field = Elementwise()
    found, gradients = differentiated(field, y0, rate, start, stop, tolerance, mode)
    y0, rate, start, stop = (x.cuda() for x in (y0, rate, start, stop))
    tolerance = (tolerance[0].cuda(), tolerance[1].cuda())
    other, others = differentiated(field.cuda(), y0, rate, start, stop, tolerance, mode)
    torch.testing.assert_close(other.y.cpu(), found.y, rtol=1e-9, atol=1e-10)
    for one, its in zip(gradients, others, strict=True):
        torch.testing.assert_close(its.cpu(), one, rtol=1e-7, atol=1e-8)
    with torch.no_grad():
        deferred = solve(field, y0, start, stop, args=(rate,), tolerance=tolerance)
    assert torch.equal(deferred.stats.nfe.cpu(), found.stats.nfe)
    torch.testing.assert_close(deferred.y.cpu(), found.y, rtol=1e-9, atol=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; this machine has none")
def test_cuda_does_not_wait_for_the_device_at_every_step(monkeypatch):
    y0 = torch.linspace(0.1, 4, 64, device="cuda").view(32, 2)

    def waits(every):
        monkeypatch.setitem(LOOK_EVERY, "cuda", every)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.no_grad():
            solve(lambda t, y: torch.sin(3 * y), y0, 0.0, 3.0, tolerance=1e-6)
        return sum(event.count for event in profile.key_averages() if "_local_scalar_dense" in event.key)

    assert waits(8) < 0.5 * waits(1)


def test_step_sizes_do_not_depend_on_the_place_in_the_batch():
    """Bit for bit: torch.pow rounds the last values of a vector differently from the others."""
    ratio = torch.rand(16, dtype=torch.float64) * 3 + 0.01
    for order in (2, 3, 5):
        whole = next_step(torch.ones_like(ratio), ratio, order)
        for count in range(1, 16):
            assert torch.equal(next_step(torch.ones(count).double(), ratio[:count], order), whole[:count])
            torch.testing.assert_close(root(ratio, order) ** order, ratio)
