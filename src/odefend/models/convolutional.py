"""Convolutional classifiers that papers compare Neural ODEs with or defend."""

from torch import nn

from odefend.errors import InvalidInput
from odefend.models.classifier import Classifier, Prediction, no_work
from odefend.tensors import Images, State


class ConvNet(Classifier):
    """A classifier that is one stack of layers."""

    def __init__(self, layers: nn.Module, *, in_channels: int, classes: int) -> None:
        super().__init__(in_channels, classes)
        self.layers = layers

    def classify(self, images: Images) -> Prediction:
        return no_work(self.layers(images))


def lenet5(in_channels: int = 1, classes: int = 10, size: int = 28) -> ConvNet:
    """LeNet-5 (doi 10.1109/5.726791) as it is used today: ReLU, max pooling, and a linear last layer, for images of
    28x28 pixels (padded to 32) or 32x32. Girard et al. (2019) compare with it and do not say which variant they used.
    61,706 parameters for one channel."""
    if size not in (28, 32):
        raise InvalidInput(f"size: expected 28 or 32, got {size}.")
    layers = nn.Sequential(
        nn.Conv2d(in_channels, 6, 5, padding=(32 - size) // 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )
    return ConvNet(layers, in_channels=in_channels, classes=classes)


class NormedBlock(nn.Module):
    """ReLU(conv, BN, ReLU, conv, BN + shortcut); the shortcut is a 1x1 convolution, or the identity."""

    def __init__(self, channels: int, out_channels: int, stride: int, *, identity: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Identity() if identity else nn.Conv2d(channels, out_channels, 1, stride, bias=False)

    def forward(self, x: State) -> State:
        """The state after the block."""
        return (self.body(x) + self.shortcut(x)).relu()


def resnet14(in_channels: int = 3, width: int = 16, classes: int = 10) -> ConvNet:
    """The residual net of Xiong et al. (2022) for images of 32x32 pixels, by their code, where only the very first block
    has an identity shortcut. They call it ResNet-20; it has 14 weighted layers besides the shortcuts, and 182,378
    parameters at width 16."""
    layers = nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        NormedBlock(width, width, 1, identity=True),
        NormedBlock(width, width, 1),
        NormedBlock(width, 2 * width, 2),
        NormedBlock(2 * width, 2 * width, 1),
        NormedBlock(2 * width, 4 * width, 2),
        NormedBlock(4 * width, 4 * width, 1),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(4 * width * 4, classes),
    )
    return ConvNet(layers, in_channels=in_channels, classes=classes)
