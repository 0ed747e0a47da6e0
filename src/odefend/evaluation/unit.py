"""The kinds of units of work. Each is a value with a `key` that says how its rows are made, the keys that it `needs`, whether it
is `done`, and `run`, which writes one shard into a ledger."""

from odefend.evaluation.craft import Craft
from odefend.evaluation.judge import Judge
from odefend.evaluation.screen import Screen
from odefend.evaluation.trace import Trace

Unit = Craft | Judge | Screen | Trace
