"""Affine stems: their operator norm is never above what is said, and not far below."""

import copy
import math

import pytest
import torch
from torch import nn

from odefend.defenses.stem import ROUNDING, _bound, _exact, affine, check_affine, conv_bound, stem_norm
from odefend.errors import InvalidInput
from odefend.models import MODELS, ODENet
from odefend.models.layers import Normalize


def matrix(stem, shape):
    """W, column by column."""
    stem, basis = copy.deepcopy(stem).double(), torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return (stem(basis) - stem(torch.zeros(1, *shape, dtype=torch.float64))).flatten(1).T


CONVOLUTIONS = [
    nn.Conv2d(1, 8, 4, stride=2, padding=1),
    nn.Conv2d(3, 8, 3, stride=2, padding=1),
    nn.Conv2d(3, 2, 3, padding="same"),
    nn.Conv2d(2, 4, (3, 2), stride=(1, 3)),
    nn.Conv2d(2, 4, 1, stride=2),
    nn.Conv2d(1, 3, 5, stride=3, padding=4),
]


@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=repr)
def test_a_convolutions_bound_holds_and_large_images_come_near_it(conv):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        conv.reset_parameters()
    with torch.no_grad():
        bound = conv_bound(conv) * (1 + ROUNDING)
        exact = _exact(conv, (conv.in_channels, 9, 9))
    sizes = [torch.linalg.matrix_norm(matrix(conv, (conv.in_channels, size, size)), 2).item() for size in (6, 9, 15)]
    assert all(size <= bound for size in sizes)
    assert sizes[-1] > 0.93 * bound
    assert exact == pytest.approx(sizes[1], rel=1e-10)


def test_the_bound_is_sharp_between_the_frequencies_of_the_grid():
    """A response with its peak anywhere: cos(a - a0) + 1 in size, the worst case for looking at points only."""
    for shift in torch.linspace(0, 0.1, 7, dtype=torch.float64):
        conv = nn.Conv2d(2, 2, (1, 2), bias=False, padding=1).double()
        turn = torch.tensor([[shift.cos(), -shift.sin()], [shift.sin(), shift.cos()]])
        conv.weight = nn.Parameter(torch.stack([torch.eye(2, dtype=torch.float64), turn], -1)[:, :, None])
        # The turn's eigenvalues are exp(+-i shift), so that K(a) reaches |1 + exp(i (a - shift))| = 2 at a = shift.
        with torch.no_grad():
            assert 2 <= conv_bound(conv) * (1 + ROUNDING) < 2.004


def test_the_norm_of_a_stem(oon):
    assert isinstance(oon, ODENet)
    found = stem_norm(oon.stem, (1, 8, 8))
    true = torch.linalg.matrix_norm(matrix(oon.stem, (1, 8, 8)), 2).item()
    assert true <= found < true * (1 + 1e-8)
    net = MODELS["oon"](in_channels=3, width=8, normalization=((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))).eval()
    assert isinstance(net, ODENet)
    with torch.no_grad():
        exact, bound = _exact(net.stem, (3, 16, 16)), _bound(net.stem)
    assert exact <= bound < 1.6 * exact and stem_norm(net.stem, (3, 32, 32)) == pytest.approx(bound)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        moved = (net.stem(images[:1]) - net.stem(images[1:])).norm() / (images[0] - images[1]).norm()
    assert moved < bound
    last = nn.Linear(64, 5)
    layers = nn.Sequential(Normalize([0.1], [0.5]), nn.Flatten(), last)
    true = torch.linalg.matrix_norm(last.weight.detach(), 2).item() / 0.5
    with torch.no_grad():
        assert [stem_norm(layers, (1, 8, 8)), _bound(layers)] == pytest.approx([true, true], rel=1e-5)
    with pytest.raises(InvalidInput, match="without groups"):
        stem_norm(nn.Conv2d(3, 6, 3, groups=3), (3, 32, 32))


def test_a_stem_is_affine_by_its_layers():
    for stem in (nn.ReLU(), nn.BatchNorm2d(1), nn.MaxPool2d(2), nn.Sequential(nn.Identity(), nn.Sequential(nn.GELU()))):
        with pytest.raises(InvalidInput, match="stem: expected one that is affine"):
            check_affine(stem)


def test_a_stem_in_double_precision_is_the_stem(oon, test_digits):
    images = test_digits[:3].images.clone().requires_grad_(True)
    state = affine(oon.stem, images)
    torch.testing.assert_close(state, oon.stem(images).double(), rtol=1e-5, atol=1e-6)
    assert state.dtype == torch.float64 and oon.stem.weight.dtype == torch.float32
    assert torch.autograd.grad(state.sum(), images)[0].any()
