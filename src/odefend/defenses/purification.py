"""Purification: an autoencoder of clean images in front of the net (Xiong et al., 2022; MagNet: Meng & Chen, arXiv 1705.09064)."""

from dataclasses import dataclass

from odefend.models import Autoencoder, Classifier, Prediction, model_beside
from odefend.tensors import Images, Index


@dataclass(frozen=True)
class Purification:
    """The defense: the net is shown an image's reconstruction, which keeps what an autoencoder has learned of clean images.

    `model`: see `model_beside`. Gradients go through the autoencoder: who knows of it loses nothing by it.
    """

    model: str | None = None

    def __call__(self, net: Classifier) -> "PurifiedNet":
        return PurifiedNet(net, model_beside(net, Autoencoder, self.model))


class PurifiedNet(Classifier):
    """A classifier behind an autoencoder."""

    def __init__(self, net: Classifier, autoencoder: Autoencoder) -> None:
        super().__init__(net.in_channels, net.classes)
        self.net, self.autoencoder = net, autoencoder
        self.training = net.training

    def rows(self, index: Index) -> "PurifiedNet":
        net = self.net.rows(index)
        return self if net is self.net else PurifiedNet(net, self.autoencoder)

    def classify(self, images: Images) -> Prediction:
        # Under noise that is not clipped an image may leave the range that the autoencoder knows.
        return self.net.classify(self.autoencoder.purified(images.clamp(0, 1).float()).to(images))
