"""What randomized defenses have in common: draws."""

from abc import abstractmethod
from collections.abc import Sequence

from odefend.models import Classifier, Prediction
from odefend.rng import content_ids
from odefend.tensors import Images, Index


class RandomizedNet(Classifier):
    """A classifier whose answers depend on a random draw.

    `draw` gives the deterministic classifier of one draw, a function of the defense's seed, each image's id and the draw's
    index. Called directly it uses draw 0 with each image's content as its id: another picture, another draw. An attack on it
    can therefore keep the picture whose draw happened to suit: judge what it finds under fresh draws, and attack an
    `Expectation` over draws of another seed.
    """

    def __init__(self, net: Classifier) -> None:
        super().__init__(net.in_channels, net.classes)
        # The flag alone: train() would reach into the net, which shares its parts with other views.
        self.training = net.training

    @abstractmethod
    def draw(self, ids: Sequence[str], index: int) -> Classifier:
        """The deterministic classifier of draw number `index` for images with these ids, in their order."""

    @abstractmethod
    def rows(self, index: Index) -> "RandomizedNet":
        """The classifier for the images at `index` of a batch."""

    def classify(self, images: Images) -> Prediction:
        return self.draw(content_ids(images), 0).classify(images)
