"""Runge-Kutta methods as tables of numbers that check their own algebra."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any

from odefend.errors import InvalidInput

Tree = tuple[Any, ...]
"""A rooted tree as the tuple of the trees below its root; a leaf is ()."""


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method of order `order`.

    With h the step and k_j the stages, stage i is f(t + c_i h, y + h sum_j a_ij k_j).

    An *adaptive* method has `error` weights: it propagates the state of its last stage, whose slope is the next step's
    first (FSAL); its estimate of the local error, of order `embedded`, is h sum_j error_j k_j; and the state half way
    through the step is y + h sum_j middle_j k_j, to order `embedded`. A *fixed-step* method has `weights` instead: the
    state after the step is y + h sum_j weights_j k_j.

    Raises InvalidInput when the coefficients do not satisfy the conditions of the order they claim (Hairer, Norsett &
    Wanner, Solving ODEs I, section II.2: one condition for every rooted tree).
    """

    name: str
    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...] = ()
    embedded: int = 0
    error: tuple[float, ...] = ()
    middle: tuple[float, ...] = ()

    @property
    def stages(self) -> int:
        """The number of stages."""
        return len(self.c)

    @property
    def adaptive(self) -> bool:
        """Whether the method estimates its error and so can choose its steps."""
        return bool(self.error)

    @property
    def solution(self) -> tuple[float, ...]:
        """The weights of the stages in the state after the step."""
        return (*self.a[-1], 0.0) if self.adaptive else self.weights

    def __post_init__(self) -> None:
        for claim, holds in self._claims():
            if not holds:
                raise InvalidInput(
                    f"tableau {self.name!r}: expected that {claim}; it does not hold. Check the numbers."
                )

    @cached_property
    def interpolant(self) -> tuple[tuple[float, ...], ...]:
        """Powers 1 to 4 of x, per stage: the state at t + x h is y + h sum_j (sum_p interpolant_pj x^p) k_j.

        The quartic through both ends, both slopes and the midpoint (Shampine 1986, doi
        10.1090/S0025-5718-1986-0815836-3).
        """
        first, last = ([float(j == k) for j in range(self.stages)] for k in (0, self.stages - 1))
        rows = zip(first, last, self.solution, self.middle, strict=True)
        powers = [
            (f0, f1 - 4 * f0 - 5 * b + 16 * m, 5 * f0 - 3 * f1 + 14 * b - 32 * m, 2 * (f1 - f0) - 8 * b + 16 * m)
            for f0, f1, b, m in rows
        ]
        return tuple(zip(*powers, strict=True))

    def _claims(self) -> Iterator[tuple[str, bool]]:
        """What must hold, each with whether it does; later claims may rely on earlier ones."""
        yield "row i of a has i entries", [len(row) for row in self.a] == list(range(self.stages))
        yield "rows of a sum to c", all(_close(sum(row), c) for row, c in zip(self.a, self.c, strict=True))
        if self.adaptive:
            yield "an adaptive method has no weights but those of its last stage", not self.weights
            yield "the last stage is at the end of the step", self.c[-1] == 1
        solution = self.solution
        yield "there is one weight per stage", len(solution) == self.stages
        yield f"the solution is of order {self.order}", self._order(solution, self.order)
        yield f"the solution is not of order {self.order + 1}", not self._order(solution, self.order + 1)
        if self.adaptive:
            lengths = len(self.error) == len(self.middle) == self.stages
            yield "there is one error and one midpoint weight per stage", lengths
            lower = [b - e for b, e in zip(solution, self.error, strict=True)]
            yield f"the error weights leave a solution of order {self.embedded}", self._order(lower, self.embedded)
            yield f"but not one of order {self.order}", not self._order(lower, self.order)
            yield f"the midpoint is of order {self.embedded}", self._order(self.middle, self.embedded, 0.5)

    def _order(self, weights: Sequence[float], order: int, at: float = 1.0) -> bool:
        """Whether h sum_j weights_j k_j advances the solution by `at` h, with a local error of order `order` + 1."""

        def stages(tree: Tree) -> list[float]:
            below = [[sum(map(_times, row, stages(branch))) for row in self.a] for branch in tree]
            return [math.prod(values) for values in zip(*below, strict=True)] if tree else [1.0] * self.stages

        return all(
            _close(sum(map(_times, weights, stages(tree))), at**size / _density(tree))
            for size in range(1, order + 1)
            for tree in rooted_trees(size)
        )


def rooted_trees(size: int) -> list[Tree]:
    """All rooted trees with `size` nodes."""
    return [()] if size == 1 else list(_forests(size - 1, size - 1))


def _forests(nodes: int, largest: int) -> Iterator[Tree]:
    """All collections of trees with `nodes` nodes together and at most `largest` each."""
    if not nodes:
        yield ()
    elif largest:
        trees = rooted_trees(largest)
        for copies in range(nodes // largest + 1):
            for some in combinations_with_replacement(trees, copies):
                for rest in _forests(nodes - copies * largest, largest - 1):
                    yield (*some, *rest)


def _size(tree: Tree) -> int:
    return 1 + sum(map(_size, tree))


def _density(tree: Tree) -> int:
    """The product over all nodes of the size of the tree that hangs from it."""
    return _size(tree) * math.prod(map(_density, tree))


def _times(one: float, other: float) -> float:
    return one * other


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, abs_tol=1e-12)
