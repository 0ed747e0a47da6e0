"""Models of images, trained on images alone: what defenses purify with and detectors compare with."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from odefend.models.card import ImageCard
from odefend.models.classifier import check_images
from odefend.tensors import Images, PerImage


class ImageModel(nn.Module, ABC):
    """A model of images (N, in_channels, size, size) in [0, 1]. `card` says where a trained one comes from."""

    card: ImageCard | None

    def __init__(self, in_channels: int, size: int) -> None:
        super().__init__()
        self.in_channels, self.size = in_channels, size
        self.card = None

    def forward(self, images: Tensor) -> PerImage:
        """What training makes small, for each image; where it has something random in it, drawn from torch's generator.

        Raises InvalidInput for images of the wrong shape, type or range.
        """
        check_images(images, self.in_channels, self.size)
        return self.loss(images)

    @abstractmethod
    def loss(self, images: Images) -> PerImage:
        """The same for images that have been checked."""

    @abstractmethod
    def measures(self, images: Images) -> dict[str, PerImage]:
        """What its card tells of it, by name, for each image."""

    def prepare(self, images: Images) -> None:
        """Set what is set from data before the first step, from some training images."""
