"""Norms of perturbations: sizes, directions, balls, and projections that no rounding leaves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odefend import rng
from odefend.norms import L2, LINF, RMS, confined


def test_points_of_a_ball_fill_it_and_stay_inside():
    ids, shape = [str(i) for i in range(500)], (1, 3, 3)
    u, z = 2 * rng.uniform(0, ids, "u", 0, shape) - 1, rng.normal(0, ids, "z", 0, shape)
    r = rng.uniform(0, ids, "r", 0, (1, 1, 1))
    for norm in (LINF, L2, RMS):
        size = norm.size(norm.ball(u, z, r))
        assert size.max() <= 1 + 1e-9
        # In 9 dimensions half of the volume lies beyond .926 of the radius.
        assert abs((size > 0.5 ** (1 / 9)).double().mean() - 0.5) < 0.08 or norm is LINF


def test_norms():
    delta = torch.tensor([[[[0.3, -0.4], [0.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    assert torch.allclose(L2.size(delta), torch.tensor([0.5, 0.0]).double())
    assert torch.allclose(RMS.size(delta), torch.tensor([0.25, 0.0]).double())
    assert torch.allclose(LINF.size(delta), torch.tensor([0.4, 0.0]).double())
    for norm in (LINF, L2, RMS):
        direction = norm.steepest(delta)
        assert torch.allclose(norm.size(direction)[:1], torch.ones(1).double()) and torch.isfinite(direction).all()
        small = norm.project(delta, 0.1)
        assert norm.size(small)[0] <= 0.1 + 1e-12
        assert torch.equal(norm.project(delta, 1.0), delta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("norm", [LINF, L2, RMS], ids=str)
@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([1, 8, 56, 224]),
    epsilon=st.one_of(st.sampled_from([0.0, 8 / 255, 0.5]), st.floats(1e-4, 2.0)),
    grey=st.floats(0.0, 1.0),
    step=st.floats(1e-5, 3.0),
    even=st.booleans(),
)
def test_no_rounding_leaves_a_ball(norm, dtype, size, epsilon, grey, step, even):
    """Also where all pixels are rounded alike, of which there may be many; nothing changes that is inside."""
    generator = torch.Generator().manual_seed(size)
    noise = torch.ones(1, 1, size, size) if even else torch.randn((1, 1, size, size), generator=generator)
    clean = torch.full((1, 1, size, size), grey, dtype=dtype)
    moved = (clean + step * noise).to(dtype)
    inside = confined(norm, clean, moved, epsilon)
    length = norm.size(inside.double() - clean.double())
    assert inside.dtype == dtype and inside.min() >= 0 and inside.max() <= 1
    assert length <= epsilon * (1 + 1e-14)
    assert torch.equal(confined(norm, clean, inside, epsilon), inside)
    wanted = norm.size(
        (moved.double().clamp(0, 1) - clean.double()) if norm is LINF else moved.double() - clean.double()
    )
    if (inside > 0).all() and (inside < 1).all():
        assert length >= min(epsilon, wanted.item()) - 2e-7 * (size if norm is L2 else 1)
