"""The trivial adaptive attack: further in the same direction."""

from dataclasses import dataclass
from typing import Any

from odefend.attacks.base import Attack, check_positive
from odefend.attacks.problem import Problem
from odefend.tensors import Images, Index, PerImage


@dataclass(frozen=True)
class Pushed(Attack):
    """What `attack` finds, pushed on: x + factor (x_adv - x), clipped to [0, 1].

    A nearest adversarial image lies on the decision boundary, where any change of the net flips some of them back; a
    little beyond it lies where changes do not reach.
    """

    attack: Attack
    factor: float = 1.1

    def __post_init__(self) -> None:
        check_positive(factor=self.factor)
        # What it aims at, and in what precision, is for the attack itself to say.
        object.__setattr__(self, "target", self.attack.target)
        object.__setattr__(self, "search_precision", self.attack.search_precision)

    @property
    def name(self) -> str:
        return f"{self.attack.name} x {self.factor:g}"

    @property
    def norm_name(self) -> str:
        return self.attack.norm_name

    @property
    def budget(self) -> float | None:
        return None if self.attack.budget is None else self.attack.budget * max(self.factor, 1)

    def measure(self, delta: Images) -> PerImage:
        return self.attack.measure(delta)

    @property
    def cost(self) -> float:
        return self.attack.cost

    def record(self) -> dict[str, Any]:
        return self.attack.record() | {"attack": self.name, "factor": self.factor}

    def perturb(self, problem: Problem, rows: Index) -> Images:
        clean = problem.images[rows]
        return (clean + self.factor * (self.attack.perturb(problem, rows) - clean)).clamp(0, 1)
