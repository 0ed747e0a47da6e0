"""Detectors that look at what an autoencoder makes of an image (Xiong et al., 2022; MagNet: Meng & Chen, arXiv 1705.09064)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from odefend.detectors.base import Detector, or_most
from odefend.models import Autoencoder, Classifier, ImageModel, model_beside
from odefend.tensors import Images, PerImage


@dataclass(eq=False)
class ReconstructionError(Detector):
    """The mean square difference between an image and its reconstruction: what an autoencoder of clean images has not learned
    to keep. `model`: see `model_beside`."""

    net: Classifier
    model: str | None = None

    def __post_init__(self) -> None:
        self.autoencoder = model_beside(self.net, Autoencoder, self.model)

    @property
    def beside(self) -> Mapping[str, ImageModel]:
        return {"autoencoder": self.autoencoder}

    @property
    def cost(self) -> int:
        return 0

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        images = images.float()
        return (self.autoencoder.purified(images) - images).square().flatten(1).mean(1)


@dataclass(eq=False)
class PurificationChange(Detector):
    """The L1 distance between the net's probabilities for an image and for its reconstruction. `model`: see `model_beside`."""

    net: Classifier
    model: str | None = None

    def __post_init__(self) -> None:
        self.autoencoder = model_beside(self.net, Autoencoder, self.model)

    @property
    def beside(self) -> Mapping[str, ImageModel]:
        return {"autoencoder": self.autoencoder}

    @property
    def cost(self) -> int:
        return 2

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        said = self.net.predict(images)
        purified = self.net.predict(self.autoencoder.purified(images.float()).to(images))
        return or_most((said.logits.softmax(1) - purified.logits.softmax(1)).abs().sum(1), said, purified)
