"""Attacks of Foolbox 3 under odefend's template, and odefend's nets for Foolbox's users (extra `attacks`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from odefend.attacks.adapter import BareLogits, check_unguarded, library, seeded, shares, widened
from odefend.attacks.base import Attack, check_epsilon
from odefend.attacks.problem import Problem
from odefend.errors import InvalidInput, unknown
from odefend.models import Classifier
from odefend.tensors import Images, Index, PerImage

ORDERS = {"l0": 0.0, "l1": 1.0, "l2": 2.0, "linf": float("inf")}
"""Norms that Foolbox measures in."""


def as_foolbox(classifier: Classifier) -> Any:
    """The classifier as a `foolbox.PyTorchModel` on images in [0, 1], for attacks that are run with Foolbox directly.

    AutoAttack takes a classifier as it is. Raises MissingExtra where Foolbox is not installed.
    """
    return library("foolbox").PyTorchModel(BareLogits(classifier).eval(), bounds=(0, 1))


@dataclass(frozen=True)
class FoolboxAttack(Attack):
    """An attack of Foolbox 3 by the name of its class, such as "DDNAttack", with its constructor's `settings`.

    Attacks of smallest norm take no `epsilon`, attacks in a ball need one, in units of the attack's own norm. Those that let
    one choose a distance ("distance" in `settings`: l0, l1, l2 or linf) measure in l2 by default.
    """

    attack: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    epsilon: float | None = None

    def __post_init__(self) -> None:
        attack, fixed = self._made(), library("foolbox.attacks.base").FixedEpsilonAttack
        if isinstance(attack, fixed) != (self.epsilon is not None):
            wanted = "an epsilon" if isinstance(attack, fixed) else "no epsilon"
            raise InvalidInput(f"epsilon: expected {wanted} for Foolbox's {self.attack}, got {self.epsilon}.")
        if self.epsilon is not None:
            check_epsilon(self.epsilon, self.norm_name)

    @property
    def name(self) -> str:
        return f"Foolbox {self.attack}"

    @property
    def norm_name(self) -> str:
        order = self._made().distance.p
        return next(name for name, p in ORDERS.items() if p == order)

    @property
    def budget(self) -> float | None:
        return self.epsilon

    def measure(self, delta: Images) -> PerImage:
        return torch.linalg.vector_norm(delta.flatten(1), ord=ORDERS[self.norm_name], dim=1)

    def record(self) -> dict[str, Any]:
        return {
            "attack": self.name,
            "norm": self.norm_name,
            "settings": dict(self.settings),
            "epsilon": self.epsilon,
        } | {
            "target": self.target,
            "search_precision": self.search_precision,
        }

    @property
    def cost(self) -> float:
        return 0.8 * float(self.settings.get("steps", 40)) * float(self.settings.get("binary_search_steps", 1))

    def perturb(self, problem: Problem, rows: Index) -> Images:
        check_unguarded(problem, self.name)
        found = []
        for some, net in shares(problem, rows):
            found.append(self._found(problem, some, net))
            net.account(problem, some)
        return torch.cat(found)

    def _found(self, problem: Problem, rows: Index, net: BareLogits) -> Images:
        """What Foolbox finds for one batch; the clean image where it knows no point to start from."""
        criteria, labels, clean = library("foolbox.criteria"), problem.labels[rows], problem.images[rows]
        wanted = criteria.Misclassification(labels)
        if self.target is not None:
            wanted = criteria.TargetedMisclassification(torch.full_like(labels, self.target))
        model = library("foolbox").PyTorchModel(net, bounds=(0, 1))
        try:
            with seeded(problem.seed):
                found = self._made()(model, clean.float(), wanted, epsilons=self.epsilon)[1]
        except (ValueError, NotImplementedError) as error:
            if "init_attack failed" not in str(error):
                raise InvalidInput(f"{self.name}: {error or type(error).__name__}") from error
            # Foolbox gives a whole batch up where one image has no start.
            return clean if len(rows) == 1 else torch.cat([self._found(problem, row, net) for row in rows.split(1)])
        return widened(clean, found if self.epsilon is not None else _without_black(clean, found))

    def _made(self) -> Any:
        attacks, base = library("foolbox.attacks"), library("foolbox.attacks.base")
        known = {name: value for name, value in vars(attacks).items() if _is_attack(value, base.AttackWithDistance)}
        if self.attack not in known:
            raise unknown("attack of Foolbox", self.attack, known)
        kind, settings = known[self.attack], dict(self.settings)
        if issubclass(kind, base.FlexibleDistanceMinimizationAttack):
            distance = settings.get("distance", "l2")
            if distance not in ORDERS:
                raise unknown("distance", distance, ORDERS)
            settings["distance"] = getattr(library("foolbox.distances"), distance)
        try:
            return kind(**settings)
        except TypeError as error:
            raise InvalidInput(f"Foolbox's {self.attack}: {error}.") from error


def _without_black(clean: Images, found: Images) -> Images:
    """The clean image where an attack of smallest norm gave up: Foolbox's C&W and EAD then return a black image, which
    many nets take for some other class, and which would count as a success at the norm of the whole image."""
    black = (found == 0).flatten(1).all(1)
    return torch.where(black.view(-1, 1, 1, 1), clean.to(found), found)


def _is_attack(value: object, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base) and not getattr(value, "__abstractmethods__", None)
