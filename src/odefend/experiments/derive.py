"""Values derived from rows before other work begins: noise of equal dose, thresholds, step caps, and a study's own."""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from odefend.errors import InvalidInput, unknown
from odefend.experiments.expand import THRESHOLD, several
from odefend.experiments.parts import Experiment
from odefend.experiments.tuned import admissible, tuned
from odefend.metrics.controls import doses, equal_noise
from odefend.metrics.detection import threshold
from odefend.metrics.rows import Rows


def derive(experiment: Experiment, name: str, rows: Rows) -> Any:
    """One value, from the rows of the measures that it names. Raises InvalidInput where they do not tell it."""
    if name.endswith(THRESHOLD):
        return _thresholds(experiment, name.removesuffix(THRESHOLD), rows)
    if name not in experiment.derived:
        raise unknown("derived value", name, experiment.derived)
    part = experiment.derived[name]
    if callable(part.value):
        return part.value(rows, **part.settings)
    if part.value not in DERIVED:
        raise unknown(f"value of {name}", part.value, DERIVED)
    return DERIVED[part.value](rows.where({"measure": several(part.of)}).shown(), **part.settings)


def needed(experiment: Experiment, name: str) -> tuple[str, ...]:
    """The measures that a value is read from; none for thresholds, whose rows are of their own."""
    return () if name.endswith(THRESHOLD) else tuple(several(experiment.derived[name].of))


def _thresholds(experiment: Experiment, detector: str, rows: Rows) -> dict[float, tuple[float, float]]:
    """(threshold, scale) by share of false alarms, from clean calibration images; the scale is the spread of their scores between
    the 5th and the 95th percentile, which no single image decides."""
    scored = rows.where({"measure": "calibrate", "detector": detector}).scored
    if not scored.height:
        raise InvalidInput(
            f"detectors: {detector}: expected calibration images that its threshold is set on, got none."
        )
    low, high = (float(scored["score"].quantile(share) or 0.0) for share in (0.05, 0.95))
    alarms = {one for part in experiment.attacks.values() for one in several(part.alarms)}
    return {one: (threshold(scored["score"].to_numpy(), one), max(high - low, 1e-3)) for one in sorted(alarms)}


def matched_noise(rows: Rows, reference: float, within: tuple[float, float] | None = None) -> list[float] | float:
    """For each other tolerance that clean images were judged at, the standard deviation of input noise that moves their margins as
    much as the change from `reference` does, in the order of the tolerances. With `within`, the one of all between these two
    together."""
    found = doses(rows.judged, reference)
    if within is not None:
        return found.sigma(*(tolerance for tolerance in found.changes if within[0] <= tolerance <= within[1]))
    return [found.sigma(tolerance) for tolerance in sorted(found.changes) if tolerance != reference]


def step_cap(rows: Rows) -> int:
    """As many steps as the costliest clean image asks for."""
    clean = rows.judged.filter(pl.col("kind") == "clean")
    return int((clean["accepted"] + clean["rejected"]).max())  # type: ignore[arg-type]


DERIVED: Mapping[str, Callable[..., Any]] = {
    "matched-noise": matched_noise,
    "equal-noise": equal_noise,
    "step-cap": step_cap,
    "admissible": admissible,
    "tuned": tuned,
}
"""Values that a TOML file can name."""
