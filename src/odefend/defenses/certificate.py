"""What counts of noisy answers prove of a smoothed classifier (Cohen et al., arXiv 1902.02918)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from scipy.stats import beta, binomtest, norm
from torch import Tensor

from odefend.errors import InvalidInput
from odefend.tensors import Counts, Labels, Mask

ABSTAINED = -1
"""The label where nothing is said."""

Outcomes = Int[Tensor, "batch outcomes"]
"""How often each class was the answer; the last column: how often there was none."""

Radii = Float64[Tensor, " batch"]
"""L2 radii, pixels being in [0, 1]."""


@dataclass(frozen=True)
class Decision:
    """What a smoothed classifier says of each image: a label, or ABSTAINED.

    `counts` (N, classes + 1) of the noisy answers, the last one of those that failed; `nfe` evaluations of the vector field.
    """

    labels: Counts
    counts: Outcomes
    nfe: Counts

    @property
    def abstained(self) -> Mask:
        """Where nothing is said."""
        return self.labels == ABSTAINED


@dataclass(frozen=True)
class Certificate(Decision):
    """A decision that holds for all images nearer than `radius` in L2, 0 where it abstains; see `Smoothing.certify`.

    `counts` are of the samples that estimate, `nfe` of these and of those that select.
    """

    radius: Radii

    def holds(self, labels: Labels, radius: float = 0.0) -> Mask:
        """Where the label is the true one and certified in the closed ball of a radius: certified accuracy is its mean."""
        return (self.labels == labels) & (self.radius > radius)


def decide(counts: Outcomes, nfe: Counts, alpha: float) -> Decision:
    """The most frequent class where it is the most probable outcome, failure being one, at level alpha; else ABSTAINED.

    The two-sided binomial test of the two most frequent outcomes: whatever the probabilities, a label that is not the most
    probable outcome is said with a probability of at most alpha (Hung & Fithian, arXiv 1610.03944).
    """
    (first, second), outcome = counts.topk(2).values.T, counts.argmax(1)
    ahead = [
        binomtest(one, one + two).pvalue <= alpha for one, two in zip(first.tolist(), second.tolist(), strict=True)
    ]
    said = torch.tensor(ahead, dtype=torch.bool, device=counts.device) & (outcome < counts.shape[1] - 1)
    return Decision(torch.where(said, outcome, ABSTAINED), counts, nfe)


def certify(selected: Outcomes, counts: Outcomes, nfe: Counts, alpha: float, unit: float) -> Certificate:
    """The class most frequent in `selected`, with radius unit * Phi^-1(p), p being the lower bound of its probability by
    `counts` at level alpha; ABSTAINED where p <= 1/2. `unit` is the radius that one standard deviation of noise is worth."""
    candidate = selected[:, :-1].argmax(1)
    hits = counts.gather(1, candidate[:, None])[:, 0].cpu().double()
    p = lower_bound(hits, counts.sum(1).cpu().double(), alpha)
    radius = torch.where(p > 0.5, unit * torch.from_numpy(norm.ppf(p.numpy())), 0.0).to(counts.device)
    return Certificate(torch.where(radius > 0, candidate, ABSTAINED), counts, nfe, radius)


def lower_bound(hits: Radii, trials: Radii, alpha: float) -> Radii:
    """The exact one-sided lower confidence bound of a probability at level 1 - alpha (Clopper & Pearson, 1934)."""
    # Without a hit the quantile is not defined, and the bound is 0.
    bound = torch.from_numpy(beta.ppf(alpha, hits.clamp_min(1).numpy(), (trials - hits + 1).numpy()))
    return torch.where(hits > 0, bound, 0.0)


def check_level(alpha: float) -> None:
    """Raise InvalidInput unless alpha is a probability of failure."""
    if not 0 < alpha < 1:
        raise InvalidInput(f"alpha: expected a probability of failure in (0, 1), got {alpha}. Try 0.001.")
