"""Runge-Kutta methods as tables of numbers that check their own algebra."""

import math
from dataclasses import dataclass

from odefend.errors import InvalidInput


@dataclass(frozen=True)
class Tableau:
    """An embedded explicit Runge-Kutta method whose last stage is the next step's first (FSAL).

    `order` is that of the solution it propagates. With h the step and k_j the stages, stage i is
    f(t + c_i h, y + h sum_j a_ij k_j); the solution is the last stage's state; the estimated local error is
    h sum_j error_j k_j; the state half way through the step is y + h sum_j middle_j k_j.

    Raises InvalidInput when the coefficients contradict each other.
    """

    name: str
    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]
    middle: tuple[float, ...]

    def __post_init__(self) -> None:
        stages = len(self.c)
        checks = {
            "row i of a has i entries": all(len(row) == i for i, row in enumerate(self.a)) and len(self.a) == stages,
            "rows of a sum to c": all(
                math.isclose(sum(r), c, abs_tol=1e-12) for r, c in zip(self.a, self.c, strict=True)
            ),
            "the last stage is at the end of the step": self.c[-1] == 1,
            "the error weights sum to 0": math.isclose(sum(self.error), 0, abs_tol=1e-12),
            "the midpoint weights sum to 1/2": math.isclose(sum(self.middle), 0.5, abs_tol=1e-12),
            "there is one error and one midpoint weight per stage": len(self.error) == len(self.middle) == stages,
        }
        for claim, holds in checks.items():
            if not holds:
                raise InvalidInput(
                    f"tableau {self.name!r}: expected that {claim}; it does not hold. Check the numbers."
                )


# Dormand & Prince 1980 (doi 10.1016/0771-050X(80)90013-3); the embedded weights and the midpoint are those of
# Shampine 1986 (doi 10.1090/S0025-5718-1986-0815836-3), which torchdiffeq uses as well.
DOPRI5 = Tableau(
    name="dopri5",
    order=5,
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    error=(
        35 / 384 - 1951 / 21600,
        0.0,
        500 / 1113 - 22642 / 50085,
        125 / 192 - 451 / 720,
        -2187 / 6784 + 12231 / 42400,
        11 / 84 - 649 / 6300,
        -1 / 60,
    ),
    middle=(
        6025192743 / 30085553152 / 2,
        0.0,
        51252292925 / 65400821598 / 2,
        -2691868925 / 45128329728 / 2,
        187940372067 / 1594534317056 / 2,
        -1776094331 / 19743644256 / 2,
        11237099 / 235043384 / 2,
    ),
)

METHODS = {tableau.name: tableau for tableau in (DOPRI5,)}
