"""Several draws of a randomized defense for one answer: their mean, or what most of them say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import is_

import torch
import torch.nn.functional as F

from odefend.attacks import Expectation, straight_through
from odefend.defenses.randomized import RandomizedNet
from odefend.errors import InvalidInput
from odefend.models import Classifier, Prediction
from odefend.solver import Status
from odefend.tensors import Images, Index

RandomDefense = Callable[[Classifier], Classifier]
"""A defense whose nets have draws, such as `RandomTolerance` or `InputNoise`."""


@dataclass(frozen=True)
class Averaged:
    """The defense: the mean of the probabilities that `draws` draws of a random defense give; the logits are its logarithm.

    Of probabilities, not of logits: a draw at a loose tolerance or a late end time may have logits a hundred times as large as
    the others', and would decide alone; a probability is at most 1. An answer needs all draws to answer. Costs are summed.
    """

    defense: RandomDefense
    draws: int = 10

    def __post_init__(self) -> None:
        _check_draws(self.draws)

    def __call__(self, net: Classifier) -> "SeveralDrawsNet":
        return SeveralDrawsNet(_randomized(self.defense(net)), self.draws, Expectation)


@dataclass(frozen=True)
class MajorityVote:
    """The defense: the label that most of `draws` draws of a random defense give; see `Vote` for its logits and gradient."""

    defense: RandomDefense
    draws: int = 10

    def __post_init__(self) -> None:
        _check_draws(self.draws)

    def __call__(self, net: Classifier) -> "SeveralDrawsNet":
        return SeveralDrawsNet(_randomized(self.defense(net)), self.draws, Vote)


class SeveralDrawsNet(RandomizedNet):
    """What `count` draws of a randomized net say `together`. Its own draw number k is of the net's draws number k * count and
    following, so that no two share one."""

    def __init__(self, net: RandomizedNet, count: int, together: Callable[[Sequence[Classifier]], Classifier]) -> None:
        super().__init__(net)
        self.net, self.count, self.together = net, count, together

    def rows(self, index: Index) -> "SeveralDrawsNet":
        net = self.net.rows(index)
        return self if net is self.net else SeveralDrawsNet(net, self.count, self.together)

    def draw(self, ids: Sequence[str], index: int) -> Classifier:
        first = index * self.count
        return self.together([self.net.draw(ids, number) for number in range(first, first + self.count)])


class Vote(Classifier):
    """What most of several classifiers say.

    Logits: the share of the votes for each class, in [0, 1], plus the class's mean probability over 2 n, n being the number
    of voters, which settles ties and nothing else. Votes have no gradient; in its place stands that of the logarithm of the
    mean probability (BPDA, arXiv 1802.00420), which is what `Averaged` has.

    A voter that gives no answer has no vote. There is no answer where no class has more votes than there are voters without
    an answer; the status is then the largest of theirs. Counts of work are summed.
    """

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__(members[0].in_channels, members[0].classes)
        self.members = torch.nn.ModuleList(members)
        self.training = self.members.training = any(one.training for one in members)

    @property
    def _voters(self) -> list[Classifier]:
        return [one for one in self.members if isinstance(one, Classifier)]

    def rows(self, index: Index) -> "Vote":
        some = [one.rows(index) for one in self._voters]
        return self if all(map(is_, some, self._voters)) else Vote(some)

    def classify(self, images: Images) -> Prediction:
        said = [one.classify(images).checked() for one in self._voters]
        answered = torch.stack([one.answered for one in said])
        votes = sum(F.one_hot(one.labels, self.classes) * one.answered[:, None] for one in said)
        assert isinstance(votes, torch.Tensor)
        mean = _log_mean(torch.stack([one.logits for one in said]), answered)
        failed = (~answered).sum(0)
        worst = torch.stack([one.status for one in said]).amax(0)
        status = torch.where(votes.amax(1) > failed, int(Status.SUCCESS), worst)
        shares = (votes.to(mean) + mean.detach().exp() / 2) / len(said)
        nfe, accepted, rejected = (
            torch.stack([getattr(one, name) for one in said]).sum(0) for name in ("nfe", "accepted", "rejected")
        )
        return Prediction(straight_through(shares, mean), nfe, accepted, rejected, status)


def _log_mean(logits: torch.Tensor, answered: torch.Tensor) -> torch.Tensor:
    """The logarithm of the mean probability over the voters (voters, N, classes) that answered; uniform where none did."""
    # Before the softmax: afterwards a zero gradient times that of what is no number would be no number.
    known = torch.where(answered[:, :, None], logits, 0.0).log_softmax(2)
    counted = answered | ~answered.any(0)
    return torch.where(counted[:, :, None], known, -torch.inf).logsumexp(0) - counted.sum(0)[:, None].to(known).log()


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise InvalidInput(f"draws: expected at least 1, got {draws}.")


def _randomized(net: Classifier) -> RandomizedNet:
    if not isinstance(net, RandomizedNet):
        raise InvalidInput(
            f"defense: expected a random one, such as RandomTolerance or InputNoise, got one that makes {type(net).__name__}, "
            "of which every draw is the same."
        )
    return net
