"""Draws are functions of seed, id, purpose and index, and of nothing else."""

import numpy as np
import torch

from odefend import rng
from odefend.defenses import LogUniform


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
