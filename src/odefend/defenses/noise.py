"""Gaussian input noise: the control that any test-time perturbation has to beat before it counts as a defense."""

from collections.abc import Sequence
from dataclasses import dataclass

from odefend import rng
from odefend.defenses.randomized import RandomizedNet
from odefend.errors import InvalidInput
from odefend.models import Classifier, Prediction
from odefend.tensors import Images, Index


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


class NoisyNet(RandomizedNet):
    """A classifier behind input noise."""

    def __init__(self, net: Classifier, noise: InputNoise) -> None:
        super().__init__(net)
        self.net, self.noise = net, noise

    def rows(self, index: Index) -> "NoisyNet":
        net = self.net.rows(index)
        return self if net is self.net else NoisyNet(net, self.noise)

    def draw(self, ids: Sequence[str], index: int) -> "NoiseDraw":
        return NoiseDraw(self.net, self.noise, ids, index)


class NoiseDraw(Classifier):
    """A classifier behind noise number `number` of images with these ids."""

    def __init__(self, net: Classifier, noise: InputNoise, ids: Sequence[str], number: int) -> None:
        super().__init__(net.in_channels, net.classes)
        self.net, self.noise, self.ids, self.number = net, noise, tuple(ids), number
        self.training = net.training

    def rows(self, index: Index) -> "NoiseDraw":
        return NoiseDraw(self.net.rows(index), self.noise, [self.ids[row] for row in index.tolist()], self.number)

    def classify(self, images: Images) -> Prediction:
        return self.net.classify(self.noise.add(images, self.ids, self.number))
