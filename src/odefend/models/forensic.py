"""The Neural ODE that tells pristine from tampered pictures (Caldelli, Carrara & Falchi, ICIP 2022)."""

import torch.nn.functional as F
from torch import nn

from odefend.models.layers import ODEField, TwoLogits, check_width, group_norm
from odefend.models.odenet import ODENet

TAMPERED = 1
"""The class of tampered pictures; 0 is pristine."""


def forensic(in_channels: int = 3, width: int = 256) -> ODENet:
    """A strided convolution, an ODE block with GELU whose time channel comes last, and one output y, above 0 for
    tampered pictures, which stands behind the two logits (-y, y). At width 256: 1,194,241 parameters."""
    check_width(width)
    head = nn.Sequential(
        group_norm(width),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(width, 1),
        TwoLogits(),
    )
    stem = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
    return ODENet(stem, ODEField(width, F.gelu, time_first=False), head, in_channels=in_channels, classes=2)
