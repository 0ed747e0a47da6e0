"""Detectors that look at the logits of one pass, or of a few more on changed images: what any costlier one has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from odefend.attacks import straight_through
from odefend.attacks.differentiable import median
from odefend.defenses import InputNoise
from odefend.detectors.base import Detector, or_most
from odefend.errors import InvalidInput
from odefend.models import Classifier, Prediction
from odefend.tensors import Images, PerImage


@dataclass(eq=False)
class OnePassMargin(Detector):
    """Minus the gap between the two largest logits: images near a decision boundary are suspicious."""

    net: Classifier

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        said = self.net.predict(images)
        return or_most(-said.margin, said)


@dataclass(eq=False)
class Confidence(Detector):
    """The logarithm of how much probability is left to the other classes (Hendrycks & Gimpel, arXiv 1610.02136): in order the
    same as minus the largest probability, and not rounded to 1 where the net is sure."""

    net: Classifier

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        said = self.net.predict(images)
        ordered = said.logits.double().sort(1).values
        return or_most(ordered[:, :-1].logsumexp(1) - ordered.logsumexp(1), said)


@dataclass(eq=False)
class Entropy(Detector):
    """The entropy of the net's probabilities, in nats."""

    net: Classifier

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        said = self.net.predict(images)
        logs = said.logits.double().log_softmax(1)
        return or_most(-(logs.exp() * logs).sum(1), said)


@dataclass(eq=False)
class Energy(Detector):
    """Minus the logsumexp of the logits (Liu et al., arXiv 2010.03759)."""

    net: Classifier

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        said = self.net.predict(images)
        return or_most(-said.logits.logsumexp(1), said)


@dataclass(eq=False)
class NoiseDrop(Detector):
    """How far the margin of the net's answer drops under Gaussian noise of standard deviation `sigma`, on average over
    `draws` (after Roth et al., arXiv 1902.04818).

    The noise is on a scale of pixels in [0, 1]. Negative where noise makes the net surer.
    """

    net: Classifier
    sigma: float = 0.05
    draws: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InvalidInput(f"draws: expected at least 1, got {self.draws}.")
        self.noise = InputNoise(self.sigma, self.seed)

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:
        said = self.net.predict(images)
        return drop(said, [self.net.predict(self.noise.add(images, ids, index)) for index in range(self.draws)])

    def redrawn(self, draws: int) -> "NoiseDrop":
        return replace(self, draws=min(draws, self.draws), seed=self.seed + 1)

    @property
    def cost(self) -> int:
        return 1 + self.draws


@dataclass(eq=False)
class FeatureSqueezing(Detector):
    """The largest L1 distance between the net's probabilities for an image and for the image squeezed: to `bits` a channel,
    and by a median over `window` x `window` pixels (Xu et al., arXiv 1704.01155, who take 1 bit and 2 x 2 on MNIST, 5 bits and
    2 x 2 on CIFAR-10, there beside non-local means, which is not in here)."""

    net: Classifier
    bits: int = 4
    window: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise InvalidInput(f"bits: expected 1 to 8, got {self.bits}.")
        if self.window < 2:
            raise InvalidInput(f"window: expected at least 2, got {self.window}.")

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        levels = 2**self.bits - 1
        coarse = straight_through((images * levels).round() / levels, images)
        smooth = median(images, self.window)[..., : images.shape[2], : images.shape[3]]
        said = [self.net.predict(one) for one in (images, coarse, smooth)]
        own, *squeezed = (one.logits.softmax(1) for one in said)
        return or_most(torch.stack([(own - other).abs().sum(1) for other in squeezed]).amax(0), *said)

    @property
    def cost(self) -> int:
        return 3


def drop(said: Prediction, others: Sequence[Prediction]) -> PerImage:
    """How far the margin of an answer drops, on average over other answers to the same images; MOST where one is missing."""
    answer = said.logits.argmax(1, keepdim=True)
    away = torch.stack([_lead(one.logits, answer) for one in others]).mean(0)
    return or_most(_lead(said.logits, answer) - away, said, *others)


def _lead(logits: torch.Tensor, answer: torch.Tensor) -> PerImage:
    """The logit of one class minus the largest other one."""
    others = logits.scatter(1, answer, float("-inf")).amax(1)
    return logits.gather(1, answer)[:, 0] - others
