"""Randomized smoothing (Cohen et al., arXiv 1902.02918), with noise in the image or in the ODE's initial state.

What is certified. Let f be the net as a function of what the noise is added to, the image x or the state y = W x + b after an
affine stem, with one of the classes or no answer as its value: no answer where a solve fails or logits are not numbers. The
smoothed classifier g says the class that f(. + noise) says most often, for noise of covariance sigma^2 I. If f says a class with
probability p > 1/2, then g says it for every image within sigma * Phi^-1(p), since no other outcome, failure included, can
be more probable there. Noise in the state certifies that radius for states, and so, divided by ||W||_2, for images.

The noise is added in float64 and *not clipped*, so f must take values outside [0, 1]: it is the net's `classify`, without the
check of the range that `predict` makes. Clipping, or rounding the sum to the net's precision, would be part of f and not
touch the certificate. A net that draws by the content of its image is a function of that content, and so is such an f.

What is not promised. A certificate fails with a probability of alpha at most, over the draws of the noise, for an image that was
chosen without knowing them: whoever knows the seed can look for an image that they fit badly. Nor does it say that the label is
right. Arithmetic is taken to be exact, as it is in Cohen et al.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odefend import rng
from odefend.attacks.problem import BATCH
from odefend.defenses.certificate import Certificate, Decision, Outcomes, certify, check_level, decide
from odefend.defenses.randomized import RandomizedNet
from odefend.defenses.stem import affine, check_affine, stem_norm
from odefend.errors import InvalidInput, unknown
from odefend.models import Adapted, Classifier, ODENet, Prediction, ResNet, check_images
from odefend.progress import Progress, Silent
from odefend.solver import PADDED_ROWS
from odefend.tensors import Counts, Images, Index, State

PLACES = ("input", "state")
"""What the noise is added to: the image, or the state that an affine stem makes of it."""


@dataclass(frozen=True)
class Smoothing:
    """Gaussian noise of standard deviation `sigma`, in units of pixels in [0, 1] or with `where="state"` of the state, and what
    its answers prove.

    Called on a net it is a random defense like others, of which attacks, `Averaged` and `MajorityVote` take draws; the mean of
    the probabilities over draws is what Salman et al. (arXiv 1906.04584) attack a smoothed classifier by. `predict` and
    `certify` are the smoothed classifier itself.

    Draws are functions of the seed, the image's id and their number. `certify` selects by the draws 0 to n0 - 1 and estimates by
    the next n; `predict` takes the draws 0 to n - 1.
    """

    sigma: float
    seed: int = 0
    where: str = "input"

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise InvalidInput(f"sigma: expected a positive number, got {self.sigma}.")
        if self.where not in PLACES:
            raise unknown("place of the noise", self.where, PLACES)

    def __call__(self, net: Classifier) -> "SmoothedNet":
        if self.where == "state":
            check_affine(_staged(net).stem)
        return SmoothedNet(net, self)

    def predict(
        self,
        net: Classifier,
        images: Tensor,
        ids: Sequence[str] | None = None,
        *,
        n: int = 1000,
        alpha: float = 0.001,
        progress: Progress | None = None,
    ) -> Decision:
        """What the smoothed classifier says of each image by n draws, or that it abstains. Where it says something else than
        the most probable outcome it is wrong, which happens with a probability of at most alpha.

        ids: what the draws depend on; default: the images' content. Raises InvalidInput for images outside [0, 1], a net in
        training mode, one whose answers depend on their neighbours, or noise in the state where the stem is not affine.
        """
        check_level(alpha)
        sampling = _Sampling(self(net), images, ids, progress or Silent())
        counts, nfe = sampling.outcomes(range(n))
        return decide(counts, nfe, alpha)

    def certify(
        self,
        net: Classifier,
        images: Tensor,
        ids: Sequence[str] | None = None,
        *,
        n0: int = 100,
        n: int = 1000,
        alpha: float = 0.001,
        progress: Progress | None = None,
    ) -> Certificate:
        """A class for each image, selected by n0 draws, and the L2 radius within which the smoothed classifier says it, by n
        others; ABSTAINED and 0 where these do not prove that its probability is above 1/2.

        With a probability of at least 1 - alpha for each image, over the draws, the smoothed classifier says this class for
        every image nearer than the radius (see the module for what that means). Most that n draws can prove is
        Phi^-1(alpha^(1/n)) sigma: 2.46 sigma by 1,000, 3.81 sigma by 100,000. No draw is left out, whatever the others say: to
        stop once they look settled would void the bound. Arguments and errors as for `predict`.
        """
        check_level(alpha)
        sampling, unit = _Sampling(self(net), images, ids, progress or Silent()), self.sigma
        if self.where == "state" and len(images):
            _, *shape = images.shape
            unit = unit / stem_norm(_staged(net).stem, (shape[0], shape[1], shape[2]))
        selected, first = sampling.outcomes(range(n0))
        counts, rest = sampling.outcomes(range(n0, n0 + n))
        return certify(selected, counts, first + rest, alpha, unit)


class SmoothedNet(RandomizedNet):
    """A net under Gaussian noise, one draw of it for an image: a vote on many is the smoothed classifier."""

    def __init__(self, net: Classifier, smoothing: Smoothing) -> None:
        super().__init__(net)
        self.net, self.smoothing = net, smoothing

    def rows(self, index: Index) -> "SmoothedNet":
        net = self.net.rows(index)
        return self if net is self.net else SmoothedNet(net, self.smoothing)

    def draw(self, ids: Sequence[str], index: int) -> "SmoothingDraw":
        return self.draws([(name, index) for name in ids])

    def draws(self, keys: Sequence[tuple[str, int]]) -> "SmoothingDraw":
        """The classifier for images with these ids, each with a draw of another number."""
        return SmoothingDraw(self.net, self.smoothing, keys)


class SmoothingDraw(Classifier):
    """A net under given draws of noise, one (id, number) for each image."""

    def __init__(self, net: Classifier, smoothing: Smoothing, keys: Sequence[tuple[str, int]]) -> None:
        super().__init__(net.in_channels, net.classes)
        self.net, self.smoothing, self.keys = net, smoothing, tuple(keys)
        self.training = net.training

    def rows(self, index: Index) -> "SmoothingDraw":
        return SmoothingDraw(self.net.rows(index), self.smoothing, [self.keys[row] for row in index.tolist()])

    def classify(self, images: Images) -> Prediction:
        if self.smoothing.where == "input":
            return self.net.classify(self._noisy(images.double()).to(images.dtype))
        net = _staged(self.net)
        return net.classify_state(self._noisy(affine(net.stem, images)).to(images.dtype))

    def _noisy(self, values: State) -> State:
        shape, seed = tuple(values.shape[1:]), self.smoothing.seed
        noise = [rng.normal(seed, [name], "smoothing", number, shape) for name, number in self.keys]
        return values + self.smoothing.sigma * torch.cat(noise).to(values.device) if noise else values


class _Sampling:
    """Counts of what a net says of images under noise."""

    def __init__(self, net: SmoothedNet, images: Images, ids: Sequence[str] | None, progress: Progress) -> None:
        check_images(images, net.in_channels)
        names = tuple(rng.content_ids(images) if ids is None else ids)
        if len(names) != len(images):
            raise InvalidInput(f"ids: expected {len(images)}, one for each image, got {len(names)}.")
        if any(module.training for module in net.net.modules()):
            raise InvalidInput(
                "the net is in training mode, in which its answers depend on more than the image. Call net.eval() first."
            )
        self.net, self.images, self.ids, self.progress = net, images, names, progress

    @torch.no_grad()
    def outcomes(self, draws: range) -> tuple[Outcomes, Counts]:
        """How often each image's draws say each class, or nothing, and what that costs."""
        if not len(draws):
            raise InvalidInput(
                f"n, n0: expected at least 1 draw each, got {draws.stop - draws.start}. Try n0=100 and n=1000."
            )
        counts = self.images.new_zeros((len(self.images), self.net.classes + 1), dtype=torch.int64)
        nfe = counts.new_zeros(len(counts))
        self.progress.stage("smoothing", len(self.images) * len(draws))
        for rows, numbers, size in self._batches(draws):
            keys = [(self.ids[row], number) for row, number in zip(rows.tolist(), numbers.tolist(), strict=True)]
            net = self.net.rows(rows)
            said = net.draws(keys).predict(self.images[rows]).first(size)
            _check_alone(net)
            outcome = torch.where(said.answered, said.labels, self.net.classes)
            counts.index_put_((rows[:size], outcome), torch.ones_like(outcome), accumulate=True)
            nfe.index_add_(0, rows[:size], said.nfe)
            self.progress.advance(int(counts.sum()))
        return counts, nfe

    def _batches(self, draws: range) -> Iterator[tuple[Index, Index, int]]:
        """(rows, numbers of draws, real size) of all pairs, padded so that an answer does not depend on the batch."""
        for pairs in torch.arange(len(self.images) * len(draws), device=self.images.device).split(BATCH):
            size = len(pairs)
            if not size:
                return
            padded = pairs[torch.arange(max(size, PADDED_ROWS), device=pairs.device) % size]
            yield padded // len(draws), draws.start + padded % len(draws), size


def _staged(net: Classifier) -> ODENet | ResNet:
    if not isinstance(net, ODENet | ResNet):
        raise InvalidInput(
            f"where: expected a net with a stem for noise in the state, got {type(net).__name__}. Try where='input'."
        )
    return net


def _check_alone(net: Classifier) -> None:
    """Raise InvalidInput where a net's answer is known to depend on the batch, by a shared step or by the batch's statistics: then
    it is no function of its own noisy image. What a layer of one's own does is not looked into."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise InvalidInput(
                "net: expected normalization by running statistics, got one by those of the batch, where an image's answer depends "
                "on its neighbours and nothing can be certified."
            )
        shared = isinstance(module, ODENet) and module.settings.coupling == "batch"
        found = isinstance(module, Adapted) and any(call.coupling == "batch" for call in module.calls)
        if shared or found:
            raise InvalidInput(
                "coupling: expected 'sample', got 'batch', where an image's answer depends on its neighbours and nothing can "
                "be certified."
            )
