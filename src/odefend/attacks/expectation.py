"""Gradients of an expectation over a defense's random draws (Athalye et al., arXiv 1802.00420)."""

import math
from collections.abc import Sequence
from operator import is_

import torch

from odefend.errors import InvalidInput
from odefend.models import Classifier, Prediction
from odefend.tensors import Images, Index


class Expectation(Classifier):
    """What several classifiers, such as draws of a randomized defense, say together: the logarithm of the mean of their
    probabilities. As an attack's `source` it gives the gradient of that.

    `members`: for a defense with draws of its own, `[defended.draw(ids, i) for i in range(n)]`, in the order of the images
    attacked. The same draws serve the whole attack (common random numbers), so its loss is a function of the image; judge
    what it finds under others.

    An answer needs all members to answer; counts of work are summed over them.
    """

    def __init__(self, members: Sequence[Classifier]) -> None:
        if not members:
            raise InvalidInput("Expectation: expected one classifier or more, got none.")
        super().__init__(members[0].in_channels, members[0].classes)
        if any((one.in_channels, one.classes) != (self.in_channels, self.classes) for one in members):
            raise InvalidInput(
                "Expectation: expected classifiers of the same pictures and classes, got different ones."
            )
        self.members = torch.nn.ModuleList(members)
        # The flags alone: train() would reach into the members, which share their parts with other views.
        self.training = self.members.training = any(one.training for one in members)

    def rows(self, index: Index) -> "Expectation":
        some = [one.rows(index) for one in self._classifiers]
        return self if all(map(is_, some, self._classifiers)) else Expectation(some)

    @property
    def _classifiers(self) -> list[Classifier]:
        return [one for one in self.members if isinstance(one, Classifier)]

    def classify(self, images: Images) -> Prediction:
        said = [one.classify(images) for one in self._classifiers]
        together = torch.stack([one.logits.log_softmax(1) for one in said]).logsumexp(0) - math.log(len(said))
        nfe, accepted, rejected = (
            torch.stack([getattr(one, name) for one in said]).sum(0) for name in ("nfe", "accepted", "rejected")
        )
        return Prediction(together, nfe, accepted, rejected, torch.stack([one.status for one in said]).amax(0))
