"""Evaluation: units of work, the ledger they write to, and what is read out of its rows."""

from odefend.evaluation.craft import Craft as Craft
from odefend.evaluation.evaluate import estimate as estimate
from odefend.evaluation.evaluate import evaluate as evaluate
from odefend.evaluation.evaluate import evaluations_in as evaluations_in
from odefend.evaluation.evaluate import opened as opened
from odefend.evaluation.file import read_evaluation as read_evaluation
from odefend.evaluation.judge import Condition as Condition
from odefend.evaluation.judge import Judge as Judge
from odefend.evaluation.ledger import Ledger as Ledger
from odefend.evaluation.runner import Runner as Runner
from odefend.evaluation.screen import Screen as Screen
from odefend.evaluation.spec import Evaluation as Evaluation
from odefend.evaluation.trace import Trace as Trace
from odefend.evaluation.views import Defended as Defended
from odefend.evaluation.views import Slice as Slice
from odefend.evaluation.views import View as View
from odefend.evaluation.views import shards as shards
from odefend.evaluation.watch import Guarded as Guarded
from odefend.evaluation.watch import Watch as Watch
