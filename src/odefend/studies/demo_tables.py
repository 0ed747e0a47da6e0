"""The names that the demo gives its parts, and its tables."""

from odefend.experiments import Cell, Column, Row, TablePart
from odefend.studies.equal_dose import recovery

NET, CONTROL, TOLERANCE = "digits-oon", "digits-res", 1e-3
LOOSE, EVERY, NOISE, STRONG = f"{NET} (loose)", f"{NET} (every tolerance)", "noise", "strong noise"
TOLERANCES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
OTHERS = tuple(one for one in TOLERANCES if one != TOLERANCE)
MATRIX = (1e-3, 1e-1, 10.0)
NOISES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SCALES = (1.0, 1.02, 1.05, 1.1, 1.25, 1.5)
RANGE = (1e-5, 1e-1)
VOTES = (20, 5)
EPSILON = 0.1
CLEAN, CALIBRATION = 200, 100
MARGIN, VOTE, NOISE_VOTE = "one-pass margin", f"tolerance vote, V = {VOTES[0]}", f"noise vote, V = {VOTES[0]}"
CW, CW_CONTROL, STEPS = "C&W", f"C&W on {CONTROL}", "PGD, all steps"
EQUAL = Cell(model=(NOISE, EVERY), tolerance=TOLERANCE, measure=("doses", "under noise"))
"""Noise of every strength at the attacked tolerance, with the clean images that tell its dose."""
MATRIX_CELL = Cell(model=(NET, LOOSE), epsilon=EPSILON, measure=("clean", "matrix"), metric="robust accuracy")


def tables() -> tuple[TablePart, ...]:
    """From the nets as they are to what a tolerance costs."""
    return nets(), recovery(NET, CW, TOLERANCE, TOLERANCES, EVERY, (NOISE,)), matrix(), detection(), caught(), work()


def nets() -> TablePart:
    """The nets without a defense."""
    searches = (CW, CW_CONTROL)
    return TablePart(
        title="The nets, and what the attacks do to them",
        heads=("net",),
        rows=(Row(label=NET, model=NET), Row(label=CONTROL, model=CONTROL)),
        columns=(
            Column(head="clean accuracy", metric="accuracy", measure="clean"),
            Column(head="C&W success", metric="success", attack=searches),
            Column(head="mean L2", metric="L2", attack=searches),
            Column(head="mean MSE", metric="MSE", attack=searches),
            Column(head=f"PGD success, linf {EPSILON:g}", metric="success", attack="PGD", epsilon=EPSILON),
            Column(head="mean NFE, clean", metric="NFE", measure="clean"),
        ),
        note=f"ODE net at tolerance {TOLERANCE:g}. Success counts images that the net had right; distances are means over these.",
    )


def matrix() -> TablePart:
    """Each attacked tolerance judged at each, for an attacker who knows the one that is used."""
    return TablePart(
        title="Robust accuracy: attacked at one tolerance, judged at another",
        heads=("attacked at",),
        rows=(
            *(Row(label=f"{one:g}", attack=STEPS, attacked_at=one) for one in MATRIX),
            Row(label="any of these", attack=STEPS),
            Row(label="any, and all other attacks"),
        ),
        where=MATRIX_CELL,
        columns=tuple(Column(head=f"judged at {one:g}", tolerance=one) for one in MATRIX),
        note=f"PGD of radius {EPSILON:g}, on all attacked images. Who knows the tested tolerance picks the worst attack of its "
        "column for each image, or does better: the last row has every attack of this radius that was run at the tested tolerance.",
    )


def detection() -> TablePart:
    """How well detectors rank images."""
    return TablePart(
        title="Do detectors tell attacked images from clean ones?",
        rows=("detector",),
        where=Cell(attack=CW, measure="scores"),
        columns=(
            Column(head="passes", metric="passes"),
            *(Column(head=f"AUROC, s = {one:g}", metric="AUROC", scale=one) for one in (1.0, 1.05, 1.1, 1.25)),
        ),
        note=f"{CLEAN} clean test images or more against the C&W images that fooled the net. The attacker knows nothing of the "
        "detector, but may go on by s. AUROC: how often an attacked image looks more suspicious than a clean one; 0.5 is guessing. "
        f"Noise votes: as many passes under noise of the dose of the tolerances between {RANGE[0]:g} and {RANGE[1]:g} together.",
    )


def caught() -> TablePart:
    """What detectors catch at a threshold."""
    return TablePart(
        title="What do detectors catch at a calibrated threshold?",
        rows=("detector",),
        where=Cell(attack=CW, measure="scores", alarms=0.05),
        columns=(
            Column(head="false alarms", metric="false alarms"),
            Column(head="caught, s = 1", metric="detected", scale=1.0),
            Column(head="caught, s = 1.25", metric="detected", scale=1.25),
            Column(head="precision at 1 %", metric="precision", scale=1.0),
        ),
        note=f"Thresholds are conformal ones for 5 % false alarms, from {CALIBRATION} clean calibration images; votes come in "
        "whole steps, so theirs alarm less. Precision: the share of alarms that are attacks where 1 % of all images is attacked.",
    )


def work() -> TablePart:
    """What each tolerance costs."""
    return TablePart(
        title="Work by tolerance",
        rows=("tolerance",),
        where=Cell(model=EVERY, measure="clean"),
        columns=(
            Column(head="mean NFE", metric="NFE"),
            Column(head="largest", metric="largest NFE"),
            Column(head="accuracy", metric="accuracy"),
        ),
        note=f"Evaluations of {NET}'s vector field per clean test image: 2 + 6 per attempted step.",
    )
