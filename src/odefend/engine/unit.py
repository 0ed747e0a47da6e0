"""The kinds of units of work, and tasks: units with what their rows are for.

A unit is a value with a `key` that says how its rows are made, the `table` they go to, the keys that it `needs`, its `cost`, and
`run`, which writes one shard into a ledger.
"""

from dataclasses import dataclass

from odefend.engine.certify import Certify
from odefend.engine.craft import Craft
from odefend.engine.predict import Predict
from odefend.engine.score import Score
from odefend.engine.trace import Trace
from odefend.ledger.storage import Label

Unit = Craft | Predict | Score | Certify | Trace


@dataclass(frozen=True)
class Task:
    """A unit of work, and what its rows are for."""

    unit: Unit
    label: Label
