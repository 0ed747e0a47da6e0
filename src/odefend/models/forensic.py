"""The Neural ODE that tells pristine from tampered pictures (Caldelli, Carrara & Falchi, ICIP 2022), and its match."""

import torch.nn.functional as F
from torch import nn

from odefend.models.layers import ODEField, ResidualField, TwoLogits, check_width, group_norm
from odefend.models.odenet import ODENet
from odefend.models.resnet import ResNet


def forensic(in_channels: int = 3, width: int = 256) -> ODENet:
    """A strided convolution, an ODE block with GELU whose time channel comes last, and one output y, above 0 for
    tampered pictures (class 1), which stands behind the two logits (-y, y). At width 256: 1,194,241 parameters."""
    check_width(width)
    field = ODEField(width, F.gelu, time_first=False)
    return ODENet(_stem(in_channels, width), field, _head(width), in_channels=in_channels, classes=2)


def forensic_matched(in_channels: int = 3, width: int = 256) -> ResNet:
    """The same with one residual block of the field's shape in the ODE block's place."""
    check_width(width)
    block = ResidualField(width, nn.GELU)
    return ResNet(_stem(in_channels, width), block, _head(width), in_channels=in_channels, classes=2)


def _stem(in_channels: int, width: int) -> nn.Module:
    return nn.Conv2d(in_channels, width, 3, stride=2, padding=1)


def _head(width: int) -> nn.Module:
    return nn.Sequential(
        group_norm(width),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(width, 1),
        TwoLogits(),
    )
