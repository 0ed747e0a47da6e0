"""The convolutional autoencoder of Xiong et al. (2022), which images are purified with before they are classified."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import nn

from odefend.errors import InvalidInput
from odefend.models.classifier import check_images
from odefend.models.image_model import ImageModel
from odefend.tensors import Images, PerImage, State


class Autoencoder(ImageModel):
    """Convolutions to a small latent state and transposed ones back, ReLU between, a sigmoid at the end.

    `widths`: channels of the convolutions. The first keeps the size, the last has a kernel of `last` x `last` pixels, stride 2
    and no padding, those between halve the size. Trained to a small binary cross-entropy between image and reconstruction.
    """

    def __init__(self, in_channels: int, size: int, widths: Sequence[int], last: int) -> None:
        super().__init__(in_channels, size)
        if len(widths) < 2 or min(widths) < 1 or last < 2:
            raise InvalidInput(f"widths, last: expected at least two widths and a kernel of 2, got {widths}, {last}.")
        sides = [size // 2**halvings for halvings in range(len(widths) - 1)]
        if size % 2 ** (len(widths) - 2) or sides[-1] < last:
            raise InvalidInput(
                f"size: expected one that {len(widths) - 2} halvings bring to at least {last}, got {size}. Take fewer widths."
            )
        down: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 3, padding=1), nn.ReLU()]
        up: list[nn.Module] = [nn.Sigmoid(), nn.ConvTranspose2d(widths[0], in_channels, 3, padding=1)]
        for narrow, wide in pairwise(widths[:-1]):
            down += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.ReLU()]
            up += [nn.ReLU(), nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1)]
        down += [nn.Conv2d(widths[-2], widths[-1], last, stride=2), nn.ReLU()]
        # Where the stride does not fit, the last row and column are not seen; on the way back they are filled in.
        up += [
            nn.ReLU(),
            nn.ConvTranspose2d(widths[-1], widths[-2], last, stride=2, output_padding=(sides[-1] - last) % 2),
        ]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*reversed(up))

    def latent(self, images: Images) -> State:
        """The state that images are brought to."""
        check_images(images, self.in_channels, self.size)
        return self.encoder(images)

    def purified(self, images: Images) -> Images:
        """The reconstructions, in [0, 1]. Raises InvalidInput for images of another size or number of channels."""
        return self.decoder(self.latent(images))

    def loss(self, images: Images) -> PerImage:
        logits = self.decoder[:-1](self.encoder(images))
        return F.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).mean(1)

    def measures(self, images: Images) -> dict[str, PerImage]:
        return {
            "binary cross-entropy": self.loss(images),
            "mean square error": (self.purified(images) - images).square().flatten(1).mean(1),
        }


def autoencoder(
    in_channels: int = 3, size: int = 32, widths: Sequence[int] = (16, 32, 64, 96), last: int = 6
) -> Autoencoder:
    """As published for CIFAR-10: a latent state of 96 x 2 x 2, 525,475 parameters."""
    return Autoencoder(in_channels, size, widths, last)
