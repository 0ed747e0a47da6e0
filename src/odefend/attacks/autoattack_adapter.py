"""AutoAttack under odefend's template (extra `attacks`)."""

from dataclasses import dataclass

import torch
from torch import nn

from odefend.attacks.adapter import check_unguarded, library, seeded, shares, widened
from odefend.attacks.base import BallAttack, check_positive
from odefend.attacks.problem import BATCH, Problem
from odefend.errors import InvalidInput, unknown
from odefend.tensors import Images, Index, Labels


@dataclass(frozen=True)
class AutoAttack(BallAttack):
    """AutoAttack (Croce & Hein, arXiv 2003.01690) through pyautoattack, in an L-inf or L2 ball of radius `epsilon`.

    `attacks`: some of `AUTO_ATTACKS`, in the order in which they are tried on what is left; default: the standard version's,
    as far as the number of classes allows. `steps` of APGD and FAB, `queries` of Square.
    """

    attacks: tuple[str, ...] | None = None
    steps: int = 100
    queries: int = 5000
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(steps=self.steps, queries=self.queries, restarts=self.restarts)
        if self.norm.name not in _AUTO_NORMS:
            raise InvalidInput(f"norm: expected LINF or L2, got {self.norm.name}.")
        for name in self.attacks or ():
            if name not in AUTO_ATTACKS:
                raise unknown("part of AutoAttack", name, AUTO_ATTACKS)
        if self.target is not None:
            raise InvalidInput("target: expected none, since AutoAttack tries all classes.")
        library("pyautoattack")

    @property
    def cost(self) -> float:
        part = {"square": 0.4 * self.queries, "apgd-t": 9.0 * self.steps, "fab-t": 18.0 * self.steps}
        tried = self.attacks or ("apgd-ce", "apgd-t", "fab-t", "square")
        return self.restarts * sum(part.get(name, float(self.steps)) for name in tried)

    def perturb(self, problem: Problem, rows: Index) -> Images:
        check_unguarded(problem, self.name)
        classes, found = problem.judge.classes, []
        for some, net in shares(problem, rows):
            with seeded(problem.seed):
                adversarial = self._run(net, problem.images[some].float(), problem.labels[some], classes, problem.seed)
                found.append(widened(problem.images[some], adversarial))
            net.account(problem, some)
        return torch.cat(found)

    def _run(self, net: nn.Module, images: Images, labels: Labels, classes: int, seed: int) -> Images:
        if self.epsilon == 0:
            return images
        run = library("pyautoattack").AutoAttack(
            net,
            norm=_AUTO_NORMS[self.norm.name],
            eps=self.epsilon,
            seed=seed,
            version="custom",
            attacks=list(self.attacks or _standard(classes)),
            device=images.device,
        )
        run.verbose = False
        for part in (run.apgd, run.apgd_targeted, run.fab):
            part.n_iter, part.n_restarts = self.steps, self.restarts
        for part in (run.apgd, run.apgd_targeted):
            # When APGD looks at its step size: shares of its steps, which were 100 when they were taken.
            part.n_iter_2, part.n_iter_min, part.size_decr = (
                max(int(share * self.steps), 1) for share in (0.22, 0.06, 0.03)
            )
        run.apgd_targeted.n_target_classes = run.fab.n_target_classes = min(9, classes - 1)
        run.square.n_queries, run.square.n_restarts = self.queries, self.restarts
        return run.run_standard_evaluation(images, labels, batch_size=BATCH)[0].detach()


AUTO_ATTACKS = ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")

_AUTO_NORMS = {"linf": "Linf", "l2": "L2"}


def _standard(classes: int) -> tuple[str, ...]:
    """The standard version; its loss for APGD-T needs four classes, and with two there is one target only."""
    if classes > 3:
        return ("apgd-ce", "apgd-t", "fab-t", "square")
    return ("apgd-ce", "fab-t", "square") if classes > 2 else ("apgd-ce", "fab", "square")
