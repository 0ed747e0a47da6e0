"""Gaussian input noise: the control that any test-time perturbation has to beat before it counts as a defense."""

from collections.abc import Sequence
from dataclasses import dataclass

from odefend import rng
from odefend.errors import InvalidInput
from odefend.models import Classifier, Prediction
from odefend.tensors import Images


@dataclass(frozen=True)
class InputNoise:
    """The defense: noise of standard deviation `sigma` (pixels in [0, 1]) is added, and the result clipped to [0, 1]."""

    sigma: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sigma >= 0:
            raise InvalidInput(f"sigma: expected a number >= 0, got {self.sigma}.")

    def __call__(self, net: Classifier) -> "NoisyNet":
        return NoisyNet(net, self)

    def add(self, images: Images, ids: Sequence[str], index: int) -> Images:
        """The images under noise number `index`: a function of seed, id and index."""
        noise = rng.normal(self.seed, ids, "input noise", index, tuple(images.shape[1:])).to(images)
        return (images + self.sigma * noise).clamp(0, 1)


class NoisyNet(Classifier):
    """A classifier behind input noise, keyed by each image's content."""

    def __init__(self, net: Classifier, noise: InputNoise) -> None:
        super().__init__(net.in_channels, net.classes)
        self.net, self.noise = net, noise
        self.train(net.training)

    def classify(self, images: Images) -> Prediction:
        return self.net.classify(self.noise.add(images, rng.content_ids(images), 0))
