"""The table that sets what a tolerance recovers beside noise of equal dose, and beside an attacker who goes on."""

from collections.abc import Sequence
from typing import Any

from odefend.experiments import Cell, Column, Row, TablePart

MEASURES = ("doses", "recovered", "under noise")
"""What the measures are called that tell doses, and what the tolerances and the noise recover; clean images are in "clean"."""


def recovery(
    net: str, attack: str, at: float, tolerances: Sequence[float], judges: str, noise: Sequence[str]
) -> TablePart:
    """For images that an attack made at tolerance `at`: what `judges`, a model at all tolerances, recovers, beside the models of
    `noise` at that of the attack."""
    beside = Cell(model=(*noise, judges), tolerance=at, measure=MEASURES)
    equal: dict[str, Any] = {"of": "both", "measure": MEASURES, "scale": 1.0}
    back: dict[str, Any] = {"metric": "recovered", "measure": "recovered"}
    rows = (
        Row(label=f"{one:g} (attacked)", tolerance=one)
        if one == at
        else Row(label=f"{one:g}", tolerance=one, other=beside)
        for one in tolerances
    )
    return TablePart(
        title="Does judging at another tolerance recover adversarial images?",
        heads=("tolerance",),
        rows=tuple(rows),
        where=Cell(model=judges, attack=attack),
        columns=(
            Column(head="clean accuracy", metric="accuracy", measure="clean"),
            Column(head=f"{attack} recovered, s = 1", scale=1.0, **back),
            Column(head="noise of equal dose (sigma)", metric="noise of equal dose", **equal),
            Column(head="noise recovers, s = 1", metric="recovered by noise of equal dose", **equal),
            Column(head="tolerance minus noise, points", metric="recovered minus noise of equal dose", **equal),
            Column(head="recovered, s = 1.1", scale=1.1, **back),
            Column(head="recovered, s = 1.25", scale=1.25, **back),
            Column(head="s50", metric="s50", measure="recovered"),
        ),
        note=f"{attack} images made at tolerance {at:g} that fooled {net} there. s scales their perturbation; s50 is the s at "
        "which half of what was recovered at s = 1 is lost again. Noise: Gaussian, on the image, judged at the attacked tolerance, "
        "several draws an image; its dose (median change of the true margin) is matched on clean calibration images, and "
        "intervals hold its uncertainty. Where the dose may ask for stronger noise than any that was judged, such noise may "
        "recover every image: its interval ends at 100 %.",
    )
