"""Metrics: what rows say, as pure functions of them. `METRICS` maps the name of a metric to what it is."""

from collections.abc import Mapping

from odefend.metrics.controls import CONTROLS
from odefend.metrics.measures import METRICS as MEASURES
from odefend.metrics.measures import Metric as Metric
from odefend.metrics.measures import PerImage as PerImage
from odefend.metrics.rows import Rows as Rows

METRICS: Mapping[str, Metric] = {**MEASURES, **CONTROLS}
"""Metrics by name; a study may bring functions of its own."""
