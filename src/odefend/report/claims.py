"""Claims: sentences that the rows confirm, do not confirm, or cannot tell."""

import math
from dataclasses import dataclass
from typing import Literal

from odefend.experiments.parts import Cell, ClaimPart
from odefend.intervals import NO_DATA, Interval
from odefend.metrics.measures import Computed
from odefend.metrics.rows import Rows
from odefend.report.cells import metric_of, wanted

Outcome = Literal["confirmed", "not confirmed", "cannot tell"]


@dataclass(frozen=True)
class Judged:
    """A claim, what became of it, and the numbers: both sides, and left minus right."""

    sentence: str
    outcome: Outcome
    left: Interval
    right: Interval
    difference: Interval


def judge(claim: ClaimPart, rows: Rows) -> Judged:
    """Whether the rows confirm a claim. Sides that are the same metric of the same images are compared image by image; others by
    the hybrid interval of Newcombe (1998, doi 10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I)."""
    left = _side(claim.left, rows)
    right = (
        Interval(claim.right, claim.right, claim.right, 1)
        if isinstance(claim.right, float)
        else _side(claim.right, rows)
    )
    gap = _paired(claim, rows) or _apart(left, right)
    return Judged(claim.sentence, _outcome(claim, gap), left, right, gap)


def _side(side: Cell | float, rows: Rows) -> Interval:
    if isinstance(side, Cell):
        metric = metric_of(side)
        return metric.of(rows.where(wanted(side))) if metric.alone else NO_DATA
    return Interval(side, side, side, 1)


def _paired(claim: ClaimPart, rows: Rows) -> Interval | None:
    left, right = claim.left, claim.right
    if not isinstance(right, Cell) or left.metric != right.metric or isinstance(metric_of(left), Computed):
        return None
    gap = metric_of(left).minus(rows.where(wanted(left)), rows.where(wanted(right)))
    return gap if gap.n else None


def _apart(left: Interval, right: Interval) -> Interval:
    value = left.value - right.value
    low = value - math.hypot(left.value - left.low, right.high - right.value)
    high = value + math.hypot(left.high - left.value, right.value - right.low)
    return Interval(value, low, high, min(left.n, right.n))


def _outcome(claim: ClaimPart, gap: Interval) -> Outcome:
    if not gap.n or math.isnan(gap.value):
        return "cannot tell"
    if claim.relation == "=":
        if -claim.margin <= gap.low and gap.high <= claim.margin:
            return "confirmed"
        return "not confirmed" if gap.low > claim.margin or gap.high < -claim.margin else "cannot tell"
    low, high = (gap.low, gap.high) if claim.relation == ">" else (-gap.high, -gap.low)
    return "confirmed" if low > claim.margin else "not confirmed" if high <= claim.margin else "cannot tell"
