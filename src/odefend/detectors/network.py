"""A separate network that tells attacked images from clean ones (Gong et al., arXiv 1704.04960)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odefend import rng
from odefend.detectors.base import Detector
from odefend.errors import InvalidInput
from odefend.models import Classifier
from odefend.tensors import Images, OtherImages, PerImage

BATCH = 64


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
        nn.Linear(8 * width, 1),
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
        images = torch.cat([clean, attacked]).float()
        labels = torch.cat([images.new_zeros(len(clean)), images.new_ones(len(attacked))])
        weight = torch.tensor(len(clean) / len(attacked))
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self.seed)
            network = _network(clean.shape[1], self.width).to(images.device)
            optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
            for epoch in range(self.epochs):
                order = rng.stream(self.seed, "images", "order of training", epoch).permutation(len(images))
                for rows in np.array_split(order, -(-len(order) // BATCH)):
                    some = torch.from_numpy(rows).to(images.device)
                    loss = F.binary_cross_entropy_with_logits(
                        network(images[some])[:, 0], labels[some], pos_weight=weight
                    )
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        return {f"network.{name}": value.detach() for name, value in network.state_dict().items()}

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        with torch.device("meta"):  # weights come from what was learned; to draw others would move the global generator
            network = _network(self.net.in_channels, self.width)
        weights = {
            name.removeprefix("network."): value.to(images.device)
            for name, value in self.state.items()
            if name.startswith("network.")
        }
        return torch.func.functional_call(network, weights, images.float())[:, 0]
