"""Residual classifiers: the papers' baseline, and nets matched to an ODE net block for block."""

from torch import nn

from odefend.models.classifier import Classifier, Prediction, no_work
from odefend.models.layers import (
    Normalization,
    ResBlock,
    ResidualField,
    check_width,
    convolution_stem,
    pooling_head,
    residual_stem,
)
from odefend.tensors import Images, State


class ResNet(Classifier):
    """stem -> residual blocks -> head."""

    def __init__(self, stem: nn.Module, blocks: nn.Module, head: nn.Module, *, in_channels: int, classes: int) -> None:
        super().__init__(in_channels, classes)
        self.stem, self.blocks, self.head = stem, blocks, head

    def classify(self, images: Images) -> Prediction:
        return self.classify_state(self.stem(images))

    def classify_state(self, state: State) -> Prediction:
        """The prediction from a state after the stem."""
        return no_work(self.head(self.blocks(state)))


def res(in_channels: int = 1, width: int = 64, classes: int = 10, normalization: Normalization = None) -> ResNet:
    """The residual net of Carrara et al. (WIFS 2019): the residual stem and six more blocks."""
    check_width(width)
    blocks = nn.Sequential(*(ResBlock(width, width) for _ in range(6)))
    return ResNet(
        residual_stem(in_channels, width, normalization),
        blocks,
        pooling_head(width, classes),
        in_channels=in_channels,
        classes=classes,
    )


def oon_matched(
    in_channels: int = 1, width: int = 64, classes: int = 10, normalization: Normalization = None
) -> ResNet:
    """OON with its ODE block replaced by one residual block of the vector field's shape."""
    check_width(width)
    return ResNet(
        convolution_stem(in_channels, width, normalization),
        ResidualField(width),
        pooling_head(width, classes),
        in_channels=in_channels,
        classes=classes,
    )


def mix_matched(
    in_channels: int = 1, width: int = 64, classes: int = 10, normalization: Normalization = None
) -> ResNet:
    """MIX with its ODE block replaced by one residual block of the vector field's shape."""
    check_width(width)
    return ResNet(
        residual_stem(in_channels, width, normalization),
        ResidualField(width),
        pooling_head(width, classes),
        in_channels=in_channels,
        classes=classes,
    )
