"""The worst case per image over a fixed suite of attacks in a ball."""

from dataclasses import dataclass, field, replace
from typing import Any

from odefend.attacks.apgd import APGD
from odefend.attacks.ball import Best
from odefend.attacks.base import Attack, BallAttack
from odefend.attacks.minimum_norm import MinimumNorm
from odefend.attacks.problem import Problem
from odefend.attacks.square import Square
from odefend.errors import unknown
from odefend.norms import confined
from odefend.tensors import Images, Index


@dataclass(frozen=True)
class Size:
    """How long the parts of a suite search."""

    steps: int
    targets: int
    nearest: MinimumNorm
    queries: int

    def __str__(self) -> str:
        return (
            f"APGD-CE {self.steps} steps, APGD towards {self.targets} classes that race {self.steps} steps, minimum norm "
            f"{self.nearest.steps} steps towards {self.nearest.candidates} classes, the source's APGD {self.steps} steps, Square "
            f"{self.queries} queries"
        )


SIZES = {
    "standard": Size(100, 9, MinimumNorm(), 5000),
    "quick": Size(20, 3, MinimumNorm(steps=20, candidates=3), 200),
}
"""By name. The standard one has as many steps, targets and queries as AutoAttack's standard version (arXiv 2003.01690)."""


@dataclass(frozen=True)
class WorstCase(BallAttack):
    """One attack after another on the images that none before has broken: APGD on cross-entropy; APGD towards several classes, on
    the margin; the nearest adversarial image, where it is inside the ball; with a source, APGD on cross-entropy and on the margin
    along the source's gradients; and Square. All but the fourth follow the classifier's own gradients. How long they search is
    said by `size`, one of `SIZES`. LINF or L2.

    AutoAttack has the targeted DLR loss in place of the margin. By APGD with nine racing targets at L-inf .1, both broke as many of
    500 images of digits-res (202 and 203) and of digits-res-adversarial (85), but DLR 111 and the margin 126 of 200 of digits-oon.

    The history has one outer step for each part. An image that nothing breaks ends with the candidate of the largest margin.
    """

    size: str = field(default="standard", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in SIZES:
            raise unknown("size", self.size, SIZES)
        self.suite(2)  # whose parts check the settings

    @property
    def name(self) -> str:
        return f"WorstCase ({self.size})"

    @property
    def cost(self) -> float:
        return sum(attack.cost for attack, along in self.suite(10) if not along)

    def record(self) -> dict[str, Any]:
        return super().record() | {"suite": str(SIZES[self.size])}

    def suite(self, classes: int) -> list[tuple[Attack, bool]]:
        """What is tried on a net of so many classes, and whether along the source's gradients."""
        size, common = SIZES[self.size], {"target": self.target, "search_precision": self.search_precision}
        ball = {"epsilon": self.epsilon, "norm": self.norm}
        climb = APGD(**ball, **common, steps=size.steps)
        targets = 0 if self.target is not None else min(size.targets, classes - 1)
        return [
            (climb, False),
            (replace(climb, loss="margin", targets=targets), False),
            (replace(size.nearest, norm=self.norm, **common), False),
            (climb, True),
            (replace(climb, loss="margin"), True),
            (Square(**ball, **common, queries=size.queries), False),
        ]

    def perturb(self, problem: Problem, rows: Index) -> Images:
        best, judge, source = Best(self, problem, rows), problem.judge, problem.source
        suite = [(attack, along) for attack, along in self.suite(judge.classes) if source is not judge or not along]
        for attack, along in suite:
            left = best.left
            if len(left):
                some, part = rows[left], problem.part(source if along else judge)
                found = confined(self.norm, problem.images[some], attack.perturb(part, some), self.epsilon)
                best.note(left, found, part.stand(some, found))
            best.remember()
        return best.images
