"""A separate network that tells attacked images from clean ones (Gong et al., arXiv 1704.04960)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from odefend.detectors.base import Detector
from odefend.detectors.learning import learn_to_tell, restored
from odefend.errors import InvalidInput
from odefend.models import Classifier
from odefend.tensors import Images, OtherImages, PerImage


def _network(channels: int, width: int) -> nn.Sequential:
    """A small convolutional net without state beside its weights: the score of an image knows no other image."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, 2),
    )


@dataclass(eq=False)
class SeparateNetwork(Detector):
    """The log-odds that a small convolutional net, trained on clean and on attacked images, gives to "attacked".

    Adam in batches of 64, both kinds weighing the same. It knows the attacks it was shown, and promises nothing of others.
    """

    learns = True
    supervised = True
    net: Classifier
    width: int = 16
    epochs: int = 30
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.epochs < 1 or not 0 < self.learning_rate < float("inf"):
            raise InvalidInput(
                f"width, epochs, learning_rate: expected positive ones, got {self.width}, {self.epochs}, {self.learning_rate}."
            )

    @property
    def cost(self) -> int:
        return 0

    def learn(self, clean: Images, attacked: OtherImages | None) -> dict[str, Tensor]:
        assert attacked is not None
        build = partial(_network, clean.shape[1], self.width)
        return learn_to_tell(build, clean, attacked, self.epochs, self.learning_rate, self.seed)

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        said = restored(partial(_network, self.net.in_channels, self.width), self.state, images)
        return said[:, 1] - said[:, 0]
