"""The solver against closed forms, against torchdiffeq, and against itself one by one."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchdiffeq import odeint
from toys import counted, pictures, small_ode_net

from odefend.errors import InvalidInput, UnknownName
from odefend.solver import Status, solve

TOLERANCES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def decay(t, y):
    return -y


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_agrees_with_torchdiffeq_step_for_step(dtype, tolerance, oon, test_digits):
    """Requirement: equal NFE in float64, and in float32 from 1e-4; state to 1e-9 and 1e-4."""
    if dtype == torch.float32 and tolerance < 1e-4:
        pytest.skip("below 1e-4 rounding in float32 decides about steps")
    for net, images in ((small_ode_net(dtype=dtype), pictures(4, dtype=dtype)), (oon, test_digits[:4].images)):
        field = net.field if net is not oon else _to(oon.field, dtype)
        stem = net.stem if net is not oon else _to(oon.stem, dtype)
        with torch.no_grad():
            state = stem(images.to(dtype))
            ours = solve(field, state, tolerance=tolerance)
            for i in range(len(state)):
                f, calls = counted(field)
                theirs = odeint(
                    f,
                    state[i : i + 1],
                    torch.tensor([0.0, 1.0], dtype=dtype),
                    rtol=tolerance,
                    atol=tolerance,
                    method="dopri5",
                )[-1]
                assert calls[0] == ours.stats.nfe[i]
                relative = (theirs[0] - ours.y[i]).norm() / theirs[0].norm()
                assert relative < (1e-9 if dtype == torch.float64 else 1e-4)


def _to(module, dtype):
    return copy.deepcopy(module).to(dtype)


def test_rejected_steps_agree_with_torchdiffeq_too():
    def spike(t, y):
        return -y + 50 * torch.exp(-((t - 0.6) ** 2) * 2000).view(-1, 1)

    y0 = torch.ones(1, 2, dtype=torch.float64)
    f, calls = counted(spike)
    theirs = odeint(f, y0, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=1e-6, atol=1e-6, method="dopri5")[-1]
    ours = solve(spike, y0, tolerance=1e-6)
    assert ours.stats.rejected.item() > 0
    assert ours.stats.nfe.item() == calls[0]
    torch.testing.assert_close(ours.y, theirs, rtol=1e-9, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6), st.sampled_from(["interpolate", "clip"]))
def test_a_batch_is_its_samples(count, seed, end):
    generator = torch.Generator().manual_seed(seed)
    y0 = torch.randn(count, 3, generator=generator, dtype=torch.float64) * 3
    rate = torch.rand(count, 1, generator=generator, dtype=torch.float64) * 6
    tolerance = 10 ** (-1 - 7 * torch.rand(count, generator=generator, dtype=torch.float64))
    stop = 0.2 + torch.rand(count, generator=generator, dtype=torch.float64)

    def field(t, y, k):
        return k * torch.sin(y + t.view(-1, 1)) - y**3

    together = solve(field, y0, 0.0, stop, args=(rate,), tolerance=tolerance, end=end)
    for i in range(count):
        alone = solve(
            field, y0[i : i + 1], 0.0, stop[i].item(), args=(rate[i : i + 1],), tolerance=tolerance[i].item(), end=end
        )
        assert alone.stats.nfe[0] == together.stats.nfe[i]
        assert alone.stats.accepted[0] == together.stats.accepted[i]
        torch.testing.assert_close(alone.y[0], together.y[i], rtol=1e-12, atol=1e-13)


def test_trained_net_is_batch_independent(oon, test_digits):
    """Requirement: logits of a batch of 64 equal those of 64 batches of 1 to 1e-9, counts exactly, in float64."""
    net = copy.deepcopy(oon).double()
    images = test_digits[:64].images.double()
    with torch.no_grad():
        together = net.predict(images)
        alone = [net.predict(image[None]) for image in images]
    logits = torch.cat([one.logits for one in alone])
    assert ((logits - together.logits).norm(dim=1) / together.logits.norm(dim=1)).max() < 1e-9
    assert torch.equal(torch.cat([one.nfe for one in alone]), together.nfe)
    assert torch.equal(torch.cat([one.accepted for one in alone]), together.accepted)
    assert together.nfe.unique().numel() > 1


def test_float32_labels_do_not_depend_on_the_batch(oon, test_digits):
    with torch.no_grad():
        together = oon.predict(test_digits.images).labels[::8]
        alone = torch.cat([oon.predict(image[None]).labels for image in test_digits.images[::8]])
    assert torch.equal(together, alone)


def test_padding_makes_a_sample_equal_bit_for_bit_in_any_batch(oon, test_digits):
    with torch.no_grad():
        whole = oon.predict(test_digits[:48].images)
        part = oon.predict(test_digits[16:32].images)
        mixed = oon.predict(test_digits[[40, 3, 17, *range(20, 33)]].images)
    assert torch.equal(whole.logits[16:32], part.logits)
    assert torch.equal(mixed.logits[2], whole.logits[17])


def test_trouble_with_one_sample_leaves_the_others_alone():
    kinds = torch.tensor([0.0, 1.0, 0.0, 2.0, 3.0], dtype=torch.float64)[:, None]

    def field(t, y, kind):
        tame = -y
        wild = torch.where(kind == 1, y**2 * 40, tame)  # reaches infinity at t = 1/40
        broken = torch.where((kind == 2) & (t.view(-1, 1) > 0.3), torch.nan, wild)
        return torch.where(kind == 3, torch.sin(1e7 * t).view(-1, 1) * 1e7, broken)

    y0 = torch.ones(5, 1, dtype=torch.float64, requires_grad=True)
    found = solve(field, y0, args=(kinds,), tolerance=1e-6, max_steps=200)
    names = [Status(code).name for code in found.status.tolist()]
    assert names[0] == names[2] == "SUCCESS"
    assert names[1] in ("STEP_UNDERFLOW", "NON_FINITE", "MAX_STEPS")
    assert names[3] == "NON_FINITE" or names[3] == "MAX_STEPS"
    assert names[4] == "MAX_STEPS"
    assert torch.isfinite(found.y).all()
    healthy = solve(field, torch.ones(2, 1, dtype=torch.float64), args=(kinds[[0, 2]],), tolerance=1e-6)
    assert torch.equal(found.y[[0, 2]].detach(), healthy.y)
    (gradient,) = torch.autograd.grad(found.y[[0, 2]].sum(), y0)
    assert torch.allclose(gradient[[0, 2]], torch.full((2, 1), math.exp(-1), dtype=torch.float64), rtol=1e-4)
    assert torch.equal(gradient[[1, 3, 4]], torch.zeros(3, 1, dtype=torch.float64))


def test_a_broken_slope_at_the_start_is_non_finite_at_once():
    found = solve(lambda t, y: y / 0, torch.ones(2, 1), tolerance=1e-3)
    assert found.status.tolist() == [Status.NON_FINITE] * 2
    assert found.stats.accepted.tolist() == [0, 0]


def test_no_time_no_work():
    found = solve(decay, torch.ones(2, 1), 1.0, 1.0)
    assert found.stats.nfe.tolist() == [0, 0] and torch.equal(found.y, torch.ones(2, 1))
    assert len(solve(decay, torch.ones(0, 3)).y) == 0


@pytest.mark.parametrize("tolerance", [0.0, -1e-3, math.nan, math.inf, (1e-3, 0.0), torch.tensor([1e-3, -1.0])])
def test_bad_tolerance_is_refused(tolerance):
    with pytest.raises(InvalidInput, match="expected a positive finite number, got"):
        solve(decay, torch.ones(2, 1), tolerance=tolerance)


def test_wrong_use_says_what_was_expected():
    y0 = torch.ones(2, 1)
    with pytest.raises(UnknownName, match="Did you mean 'dopri5'"):
        solve(decay, y0, method="dopri")
    with pytest.raises(UnknownName, match="gradient mode"):
        solve(decay, y0, gradient="exakt")
    with pytest.raises(InvalidInput, match="one per sample"):
        solve(decay, y0, tolerance=torch.tensor([1e-3] * 3))
    with pytest.raises(InvalidInput, match="times"):
        solve(decay, y0, times=[0.5, 0.2])
    with pytest.raises(InvalidInput, match="floating-point"):
        solve(decay, torch.ones(2, 1, dtype=torch.int64))
    with pytest.raises(InvalidInput, match="max_steps"):
        solve(decay, y0, max_steps=0)
