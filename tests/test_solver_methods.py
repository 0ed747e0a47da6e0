"""Every method of the solver: the order it claims, standard problems, the ways of asking for a solution."""

import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch
from detest import END, PROBLEMS
from scipy.integrate import solve_ivp
from torchdiffeq import odeint
from toys import counted

from odefend.errors import InvalidInput
from odefend.solver import METHODS, Status, solve
from odefend.solver.step import attempt, interpolate
from odefend.solver.tableau import Tableau, rooted_trees

ADAPTIVE = [name for name, tableau in METHODS.items() if tableau.adaptive]
FIXED = [name for name, tableau in METHODS.items() if not tableau.adaptive]


def wave(t, y):
    """y' = y cos t, solved by y(0) exp(sin t)."""
    return y * torch.cos(t).view(-1, 1)


def ones(count=1):
    return torch.ones(count, 1, dtype=torch.float64)


def slopes(errors):
    return [math.log2(one / other) for one, other in pairwise(errors)]


STARTS = torch.linspace(0.1, 2, 9, dtype=torch.float64)


def one_step(tableau, h):
    """A step of size h from each of the start times, and what the solution would be at a fraction of it."""
    size = torch.full_like(STARTS, h)
    y0 = ones(len(STARTS))
    step = attempt(wave, STARTS, size, y0, wave(STARTS, y0), (), tableau)
    return step, lambda part: torch.exp(torch.sin(STARTS + part * h) - torch.sin(STARTS))[:, None]


def rms(error):
    return error.square().mean().sqrt().item()


@pytest.mark.parametrize("name", METHODS)
def test_order_by_slope_of_the_local_error(name):
    """Halving one step must shrink its error by 2^(order + 1)."""
    errors = []
    for h in (0.2, 0.1, 0.05):
        step, exact = one_step(METHODS[name], h)
        errors.append(rms(step.y - exact(1)))
    assert all(abs(slope - METHODS[name].order - 1) < 0.6 for slope in slopes(errors)), slopes(errors)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_order_of_the_error_estimate_and_of_the_midpoint(name):
    tableau, estimates, midpoints = METHODS[name], [], []
    for h in (0.2, 0.1, 0.05):
        step, exact = one_step(tableau, h)
        estimates.append(rms(h * step.error(tableau)))
        half = interpolate(step, ones(len(STARTS)), torch.full_like(STARTS, h), torch.full_like(STARTS, 0.5), tableau)
        midpoints.append(rms(half - exact(0.5)))
    assert all(abs(slope - tableau.embedded - 1) < 0.4 for slope in slopes(estimates)), slopes(estimates)
    assert all(slope > tableau.embedded + 0.6 for slope in slopes(midpoints)), slopes(midpoints)


@pytest.mark.parametrize("name", FIXED)
def test_fixed_steps_converge_with_their_order(name):
    errors = [
        abs(solve(wave, ones(), 0.0, 2.0, method=name, step=h).y.item() - math.exp(math.sin(2)))
        for h in (0.1, 0.05, 0.025)
    ]
    assert all(abs(slope - METHODS[name].order) < 0.35 for slope in slopes(errors)), slopes(errors)


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"c": (0.0, 0.5, 1.0)}, "rows of a sum to c"),
        ({"a": ((), (1.0,), (0.75, 0.25))}, "solution is of order 2"),
        ({"order": 1}, "not of order 2"),
        ({"error": (-0.5, 0.4, 0.0)}, "error weights leave a solution of order 1"),
        ({"error": (0.0, 0.0, 0.0)}, "an error estimate|weights but those|not one of order 2|one weight per stage"),
        ({"middle": (0.5, 0.1, 0.0)}, "midpoint is of order 1"),
        ({"weights": (0.5, 0.5, 0.0)}, "no weights but those of its last stage"),
        ({"a": ((), (1.0,))}, "row i of a has i entries"),
    ],
)
def test_a_wrong_tableau_says_what_does_not_hold(changes, claim):
    with pytest.raises(InvalidInput, match=claim):
        Tableau(**({name: value for name, value in vars(METHODS["heun"]).items() if name != "interpolant"} | changes))


def test_rooted_trees_are_counted_right():
    """Cayley's numbers of rooted trees."""
    assert [len(rooted_trees(size)) for size in range(1, 8)] == [1, 1, 2, 4, 9, 20, 48]


@pytest.mark.parametrize("name", PROBLEMS)
def test_error_is_proportional_to_tolerance_on_standard_problems(name):
    """Against SciPy's DOP853 at 1e-13. Proportional: the log of the error falls with slope one, give or take."""
    field, start = PROBLEMS[name]
    y0 = torch.tensor([start], dtype=torch.float64)

    def one(t, y):
        return field(torch.tensor([t]), torch.tensor(y)[None])[0].numpy()

    peer = solve_ivp(one, (0, END), y0[0].numpy(), method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    for method in ("dopri5", "tsit5"):
        errors = {
            tolerance: abs(solve(field, y0, 0, END, method=method, tolerance=tolerance).y[0].numpy() - peer).max()
            for tolerance in (1e-6, 1e-10)
        }
        slope = math.log10(errors[1e-6] / errors[1e-10]) / 4
        assert 0.75 < slope < 1.6, (method, errors)
        assert errors[1e-10] < 1e-7, (method, errors)


@pytest.mark.parametrize("end", ["interpolate", "clip"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_linear_fields_are_matrix_exponentials_forwards_and_backwards(name, end):
    a = torch.tensor([[0.0, 2.0], [-2.0, -0.3]], dtype=torch.float64)
    y0 = torch.tensor([[1.0, 0.0], [0.3, -2.0]], dtype=torch.float64)
    tolerance = {"heun": 1e-5, "bosh3": 1e-7}.get(name, 1e-9)
    stop = torch.tensor([3.0, -1.0], dtype=torch.float64)
    found = solve(lambda t, y: y @ a.T, y0, 0.5, stop, method=name, tolerance=tolerance, end=end, max_steps=10**5)
    exact = torch.stack([torch.matrix_exp((stop[i] - 0.5) * a) @ y0[i] for i in range(2)])
    torch.testing.assert_close(found.y, exact, rtol=100 * tolerance, atol=100 * tolerance)
    assert (found.stats.nfe > 0).all() and (found.status == Status.SUCCESS).all()


@pytest.mark.parametrize("tolerance", [1e-6, 1e-3, 1e-1])
@pytest.mark.parametrize("name", ["dopri5", "bosh3"])
def test_batch_coupling_agrees_with_torchdiffeq_at_64(name, tolerance):
    """One step size and one error norm for all; samples as unlike as can be."""
    generator = torch.Generator().manual_seed(0)
    y0 = torch.randn(64, 3, 2, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 2, 64).view(-1, 1, 1)

    def field(t, y):
        return torch.sin(y + t.view(-1, 1, 1)) * y.flatten(1).norm(dim=1).view(-1, 1, 1) / 2

    f, calls = counted(field)
    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    theirs = odeint(f, y0, times, rtol=tolerance, atol=tolerance, method=name)
    assert isinstance(theirs, torch.Tensor)
    ours = solve(field, y0, times=times, tolerance=tolerance, method=name, coupling="batch")
    assert ours.stats.nfe.tolist() == [calls[0]] * 64
    assert ours.y.shape == y0.shape and ours.path.shape == (64, 3, 3, 2)
    if name == "dopri5":  # torchdiffeq's bosh3 interpolates with a midpoint of order one
        torch.testing.assert_close(ours.path.transpose(0, 1), theirs, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(ours.y, theirs[-1], rtol=1e-8, atol=1e-9)
    alone = solve(field, y0, tolerance=tolerance, method=name)
    assert alone.stats.nfe.unique().numel() > 1


@pytest.mark.parametrize("name", ["euler", "midpoint", "rk4"])
def test_fixed_steps_agree_with_torchdiffeq(name):
    y0 = torch.linspace(-2, 2, 6, dtype=torch.float64).view(3, 2)

    def field(t, y):
        return torch.sin(3 * y + t.view(-1, 1))

    f, calls = counted(field)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    theirs = odeint(f, y0, times, method=name, options={"step_size": 0.3})[-1]
    ours = solve(field, y0, method=name, step=0.3)
    torch.testing.assert_close(ours.y, theirs, rtol=1e-12, atol=1e-12)
    assert ours.stats.nfe.tolist() == [calls[0]] * 3
    assert ours.stats.accepted.tolist() == [4] * 3


@pytest.mark.parametrize(("name", "how"), [("dopri5", {}), ("tsit5", {}), ("bosh3", {}), ("rk4", {"step": 0.01})])
@pytest.mark.parametrize("end", ["interpolate", "clip"])
def test_dense_output_is_the_solution_at_each_requested_time(name, how, end):
    """Per-sample times, some of them at the ends and some equal; also backwards."""
    times = torch.tensor([[0.0, 0.25, 0.25, 1.1, 2.0], [0.5, 0.6, 0.7, 0.8, 0.9]], dtype=torch.float64)
    for start, stop, wanted in ((0.0, 2.0, times), (2.0, 0.0, times.flip(1))):
        y0 = ones(2) * math.exp(math.sin(start))
        found = solve(wave, y0, start, stop, times=wanted, method=name, tolerance=1e-7, end=end, **how)
        torch.testing.assert_close(found.path[:, :, 0], torch.exp(torch.sin(wanted)), rtol=2e-5, atol=0)
        torch.testing.assert_close(found.y, ones(2) * math.exp(math.sin(stop)), rtol=1e-5, atol=0)
    if name != "rk4":  # fixed steps end at each requested time, so asking changes them
        plain = solve(wave, ones(2), 0.0, 2.0, method=name, tolerance=1e-7, end=end)
        asked = solve(wave, ones(2), 0.0, 2.0, times=times, method=name, tolerance=1e-7, end=end)
        assert torch.equal(plain.y, asked.y) and torch.equal(plain.stats.nfe, asked.stats.nfe)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_log_has_every_attempt(sign):
    def spike(t, y):
        return -y * sign + 50 * torch.exp(-((t.abs() - 0.6) ** 2) * 2000).view(-1, 1)

    y0 = torch.tensor([[1.0, 0.4], [3.0, -2.0], [0.1, 0.2]], dtype=torch.float64)
    found = solve(spike, y0, 0.0, float(sign), tolerance=1e-6, log=True, end="clip")
    log = found.log
    assert log is not None and found.stats.rejected.sum() > 0
    for i in range(3):
        one = log.of(i)
        assert len(one.t) == found.stats.accepted[i] + found.stats.rejected[i]
        assert int(one.accepted.sum()) == found.stats.accepted[i]
        assert torch.equal(one.accepted, one.ratio <= 1)
        assert (one.h * sign > 0).all() and one.t[0] == 0
        torch.testing.assert_close(one.h[one.accepted].sum(), torch.tensor(float(sign), dtype=torch.float64))
        # An accepted step begins where the one before it ended; a rejected one is tried again from the same place.
        ends = torch.where(one.accepted, one.t + one.h, one.t)
        torch.testing.assert_close(one.t[1:], ends[:-1])
        assert (one.error > 0).all()


def test_the_logged_error_is_the_embedded_estimate():
    """One step of Heun on y' = y from 1: Euler says 1 + h, Heun 1 + h + h^2 / 2."""
    log = solve(lambda t, y: y, ones(), method="heun", tolerance=1e-2, log=True).log
    assert log is not None
    first = log.h[0].item()
    assert log.error[0].item() == pytest.approx(first**2 / 2, rel=1e-9)
    scale = 1e-2 + 1e-2 * (1 + first + first**2 / 2)
    assert log.ratio[0].item() == pytest.approx(first**2 / 2 / scale, rel=1e-9)


def test_a_norm_of_ones_own():
    def largest(error):
        return error.flatten(1).abs().amax(1).double()

    y0 = torch.tensor([[1.0] + [0.0] * 99], dtype=torch.float64)
    strict = solve(lambda t, y: -y, y0, tolerance=1e-6, norm=largest)
    mild = solve(lambda t, y: -y, y0, tolerance=1e-6)
    assert strict.stats.nfe > mild.stats.nfe


def test_wrong_use_of_steps_times_and_couplings():
    y0 = ones(2)
    with pytest.raises(InvalidInput, match="euler needs"):
        solve(wave, y0, method="euler")
    with pytest.raises(InvalidInput, match="dopri5 chooses its steps"):
        solve(wave, y0, step=0.1)
    with pytest.raises(InvalidInput, match="in order from t0 to t1"):
        solve(wave, y0, times=[0.0, 1.5])
    with pytest.raises(InvalidInput, match="one sequence of times or one per sample"):
        solve(wave, y0, times=torch.zeros(3, 2))
    with pytest.raises(InvalidInput, match="finite time"):
        solve(wave, y0, 0.0, math.inf)
    with pytest.raises(InvalidInput, match="without gradient"):
        solve(wave, y0, torch.zeros(2, requires_grad=True))
    with pytest.raises(InvalidInput, match="shares its steps"):
        solve(wave, y0, coupling="batch", tolerance=torch.tensor([1e-3, 1e-4]))
    with pytest.raises(InvalidInput, match="shares its steps"):
        solve(wave, y0, 0.0, torch.tensor([1.0, 2.0]), coupling="batch")


def test_no_samples():
    found = solve(wave, torch.ones(0, 3), times=[0.0, 1.0], log=True)
    assert found.path.shape == (0, 2, 3) and found.log is not None and len(found.log.t) == 0


def test_parts_of_a_batch_make_one_answer(monkeypatch):
    """Where the state is too large for the cache, parts are solved one after the other: the same steps, and values that
    differ by rounding at most (which vector lane a sample falls into decides whether a product is fused)."""
    y0 = torch.rand(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    rate = torch.linspace(0, 4, 40, dtype=torch.float64)[:, None]

    def run():
        with torch.no_grad():
            return solve(
                lambda t, y, rate: rate * torch.sin(y) - y, y0, args=(rate,), times=[0.2, 1.0], log=True, tolerance=1e-6
            )

    whole = run()
    monkeypatch.setattr(import_module("odefend.solver.solve"), "CACHED_BYTES", 1)
    parts = run()
    torch.testing.assert_close(parts.path, whole.path, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(parts.y, whole.y, rtol=1e-12, atol=1e-13)
    assert torch.equal(whole.stats.nfe, parts.stats.nfe)
    assert whole.log is not None and parts.log is not None
    for name, value in vars(whole.log).items():
        if value.is_floating_point():  # the error estimate is a difference: rounding is large beside it
            torch.testing.assert_close(getattr(parts.log, name), value, rtol=1e-6, atol=1e-12)
        else:
            assert torch.equal(value, getattr(parts.log, name)), name


class Turning(torch.nn.Module):
    """A field that several threads may call at once; notes which do, and with how many samples."""

    concurrent = True

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, t, y, rate):
        self.calls.append((threading.get_ident(), len(y)))
        return rate * torch.sin(y + t.view(-1, 1)) - y


def in_parts(count=64):
    """A field, and how to solve it for samples of which each sixteenth asks for many more steps than others."""
    rate = torch.where(torch.arange(count) % 16 == 5, 60.0, 0.5).double()[:, None]
    y0, field = torch.linspace(-3, 3, 3 * count, dtype=torch.float64).view(count, 3), Turning()
    return field, lambda: solve(field, y0, args=(rate,), times=[0.2, 1.0], tolerance=1e-5, log=True, max_steps=100)


def equal(one, other):
    parts = ((found.y, found.path, found.status, *vars(found.stats).values()) for found in (one, other))
    return all(itertools.starmap(torch.equal, zip(*parts, strict=True))) and all(
        torch.equal(value, getattr(other.log, name)) for name, value in vars(one.log).items()
    )


def test_what_is_left_of_all_parts_goes_on_together(monkeypatch):
    """Bit for bit as in one, and f is called for few rows more than for the slow samples alone."""
    field, run = in_parts()
    whole, calls = run(), field.calls
    field.calls = []
    monkeypatch.setattr(import_module("odefend.solver.solve"), "CACHED_BYTES", 1)
    with torch.no_grad():
        assert equal(run(), whole)
    assert max(rows for _, rows in field.calls) < 32
    assert sum(rows for _, rows in field.calls) < 1.1 * sum(rows for _, rows in calls)


@pytest.fixture
def threads(monkeypatch):
    """Sets torch's number of threads for a test in which the smallest states are shared."""
    before = torch.get_num_threads()
    monkeypatch.setattr(import_module("odefend.solver.shares"), "SHARE_BYTES", 1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_shares_in_threads_of_their_own_change_no_bit(number, threads):
    field, run = in_parts()

    def who():
        return {thread for thread, _ in field.calls}

    whole, field.calls = run(), []
    threads(number)
    with torch.no_grad():
        assert equal(run(), whole)
    assert len(who()) == number
    with ThreadPoolExecutor(1) as pool:
        assert torch.get_num_threads() == pool.submit(torch.get_num_threads).result() == number
    field.calls = []
    run()  # with a graph, which belongs to one thread
    assert who() == {threading.get_ident()}
    field.concurrent, field.calls = False, []
    with torch.no_grad():
        assert equal(run(), whole)
    assert who() == {threading.get_ident()}


def test_shares_are_computed_as_the_caller_computes(threads):
    """Without a graph, in the precision that was asked for; and what goes wrong in one goes wrong in all."""
    threads(2)
    seen, layer = [], torch.nn.Linear(3, 3)

    class Field(torch.nn.Module):
        concurrent = True

        def forward(self, t, y):
            slope = layer(y)
            seen.append((slope.dtype, slope.requires_grad, torch.is_inference_mode_enabled()))
            return slope

    y0 = torch.rand(40, 3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        solve(Field(), y0)
    assert set(seen) == {(torch.bfloat16, False, False)}
    seen.clear()
    with torch.inference_mode():
        solve(Field(), y0)
    assert set(seen) == {(torch.float32, False, True)}
    Field.forward = lambda self, t, y: y[:, :1]
    with torch.no_grad(), pytest.raises(InvalidInput, match="slope of the state's shape"):
        solve(Field(), y0)


def test_the_smallest_step_is_ten_ulp_of_the_time():
    """A wall at t = 1 that no step passes: the last steps tried must have come down to ten ulp, and not below."""

    def wall(t, y):
        return torch.where(t.view(-1, 1) > 1, torch.nan, 1.0) * torch.ones_like(y)

    found = solve(wall, ones(), 0.0, 2.0, tolerance=1e-3, log=True)
    assert found.status.item() == Status.NON_FINITE and found.log is not None
    ulp = torch.finfo(torch.float64).eps / 2  # of the times just below 1
    assert 10 * ulp <= found.log.h.min().item() < 60 * ulp


def test_wrong_args_and_slopes_say_what_was_expected():
    y0: Any = torch.ones(3, 2)
    wrong: Any = ((torch.ones(1, 1),), (torch.tensor(1.0),), (y0, y0[:2]))
    for args in wrong:
        with pytest.raises(InvalidInput, match="args: expected a sequence of tensors with one row for each of the 3"):
            solve(lambda t, y, k: -k * y, y0, args=args)
    slopes: Any = (lambda t, y: None, lambda t, y: y[:, :1], lambda t, y: torch.cat([y, y]))
    for slope in slopes:
        with pytest.raises(InvalidInput, match=r"slope of the state's shape \(3, 2\)"):
            solve(slope, y0)
    with pytest.raises(InvalidInput, match="times: expected times without gradient"):
        solve(wave, y0, times=torch.ones(1, requires_grad=True))
