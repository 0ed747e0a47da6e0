"""Metrics: what rows say, as pure functions of them. `METRICS` maps the name of a metric to what it is."""

from odefend.metrics.measures import METRICS as METRICS
from odefend.metrics.measures import Metric as Metric
from odefend.metrics.measures import PerImage as PerImage
from odefend.metrics.rows import Rows as Rows
