"""The nets that are timed, trained ones, and real images of their data, drawn at random."""

import torch
from torch import Tensor

import odefend
from odefend.data import LabelledImages
from odefend.models import ODENet


def digits_oon() -> tuple[ODENet, Tensor]:
    """The packaged net of 64 channels on 8x8 digits, whose states are 64x4x4 or smaller; and test images."""
    return _trained("digits-oon", odefend.digits("test"))


def mnist_oon() -> tuple[ODENet, Tensor]:
    """OON at the papers' width, K = 64, on MNIST, whose states are 64x14x14; and test images."""
    return _trained("mnist-oon", odefend.mnist("test"))


def _trained(name: str, data: LabelledImages) -> tuple[ODENet, Tensor]:
    net = odefend.load(name)
    assert isinstance(net, ODENet)
    drawn = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:128]
    return net.eval(), data.images[drawn]
