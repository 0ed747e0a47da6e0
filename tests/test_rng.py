"""Draws are functions of seed, id, purpose and index, and of nothing else."""

import numpy as np
import torch

from odefend import rng
from odefend.defenses import LogUniform
from odefend.norms import L2, LINF, RMS


def test_a_draw_does_not_depend_on_its_neighbours_or_on_global_state():
    torch.manual_seed(1)
    np.random.seed(1)
    together = rng.normal(7, ["a", "b", "c"], "noise", 2, (4,))
    torch.manual_seed(2)
    assert torch.equal(rng.normal(7, ["c", "a"], "noise", 2, (4,)), together[[2, 0]])
    others = [
        rng.normal(8, ["a"], "noise", 2, (4,)),
        rng.normal(7, ["a"], "start", 2, (4,)),
        rng.normal(7, ["a"], "noise", 3, (4,)),
    ]
    assert all(not torch.equal(other, together[:1]) for other in others)


def test_draws_have_the_distribution_they_claim():
    ids = [str(i) for i in range(4000)]
    u, z = rng.uniform(0, ids, "u"), rng.normal(0, ids, "z")
    assert abs(u.mean() - 0.5) < 0.02 and abs(z.mean()) < 0.06 and abs(z.std() - 1) < 0.04
    tau = LogUniform(1e-5, 1e-1).draw(0, ids, 0)
    assert tau.min() >= 1e-5 and tau.max() <= 1e-1
    assert abs(tau.log10().mean() + 3) < 0.08, "log-uniform: the middle is 1e-3"


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
