"""The tables of the attacks on trial, and what both the attacks and the tables are about."""

from collections.abc import Sequence

from odefend.experiments import (
    Cell,
    Column,
    Row,
    TablePart,
)

TOLERANCE = 1e-3
TOLERANCES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
RANGE = {"low": 1e-5, "high": 1e-1}
DETECTORS = ("one-pass-margin", "tolerance-vote")
ALARMS = (0.01, 0.05)
RADII = (0.1, 0.3, 1.0)
EPSILON, RMS, STEPS, DRAWS = 0.1, 0.05, 20, 4
JUDGED = 10
"""Draws under which images made against a random tolerance are judged; no attack has seen them."""


def foolbox_table(images: int) -> TablePart:
    """Success, distance and work of the same settings in both."""
    pairs = (
        ("C&W", "C&W", "C&W, Foolbox"),
        ("BIM, radius 0.1", "BIM", "BIM, Foolbox"),
        ("BIM, L2", "BIM, L2", "BIM, L2, Foolbox"),
        ("BIM, RMS, radius 0.05", "BIM, RMS", "BIM, L2, Foolbox"),
    )
    return TablePart(
        title="The same settings in odefend and in Foolbox",
        heads=("attack",),
        rows=tuple(Row(label=label, attack=own, other=Cell(attack=theirs)) for label, own, theirs in pairs),
        where=Cell(model="net"),
        columns=(
            Column(head="success", metric="success"),
            Column(head="success, Foolbox", metric="success", of="other"),
            Column(head="difference, points", metric="success", minus="other"),
            Column(head="mean L2", metric="L2"),
            Column(head="mean L2, Foolbox", metric="L2", of="other"),
            Column(head="L2 beside Foolbox", metric="L2", over="other", show="change"),
            Column(head="gradients", metric="gradients", show="plain"),
            Column(head="gradients, Foolbox", metric="gradients", of="other", show="plain"),
        ),
        note=f"At tolerance {TOLERANCE:g}, {images} images; both attack the same net and are judged by the same solver. L2 beside "
        "Foolbox: ratio of the means over images that both broke. The RMS ball is what Foolbox 1.8 and 2.0 called L2; in "
        "Foolbox 3 it "
        "is an L2 ball of its radius times the root of the number of pixels, and stands beside that one.",
    )


def precision_table(images: int) -> TablePart:
    """Images that C&W made with gradients in float32 and in bfloat16, judged over tolerances."""
    names = {"float32": "C&W", "bfloat16": "C&W, bfloat16", "float32, Foolbox": "C&W, Foolbox"}
    judged = tuple(
        Column(head=f"{at:g}", metric="recovered", model="over tolerances", measure="over tolerances", tolerance=at)
        for at in TOLERANCES
    )
    return TablePart(
        title="C&W images recovered by tolerance, searched in two precisions",
        same_images=True,
        heads=("gradients in",),
        rows=tuple(Row(label=label, attack=attack) for label, attack in names.items()),
        columns=(
            Column(head="success", metric="success", model="net"),
            Column(head="mean L2", metric="L2", model="net"),
            Column(head="gradients", metric="gradients", model="net", show="plain"),
            *judged,
        ),
        note=f"Attacked at tolerance {TOLERANCE:g} and judged at others: the share of the images that fooled the net which it "
        f"has right "
        f"again. {images} images. Every success was judged in float32, and the last round of the search in "
        "bfloat16 is in float32.",
    )


def random_table() -> TablePart:
    """Attacks that know that the tolerance is drawn beside the same that do not."""
    pairs = {f"PGD, radius {EPSILON:g}": "PGD", "C&W": "C&W"}
    rows = (
        Row(
            label=label,
            attack=f"{name}, adaptive",
            model="random",
            other=Cell(attack=f"{name}, oblivious", model=("net", "random")),
        )
        for label, name in pairs.items()
    )
    return TablePart(
        title="A tolerance drawn anew for every answer",
        heads=("attack",),
        rows=tuple(rows),
        where=Cell(measure="drawn"),
        columns=(
            Column(head="images", metric="fooled", minus="other", show="n"),
            Column(head="oblivious fools", metric="fooled", of="other"),
            Column(head="adaptive fools", metric="fooled"),
            Column(head="difference, points", metric="fooled", minus="other"),
            Column(head="L2, oblivious", metric="L2", of="other"),
            Column(head="L2, adaptive", metric="L2"),
            Column(head="extra L2", metric="L2", minus="other", show="3"),
        ),
        note=f"The tolerance is log-uniform in [{RANGE['low']:g}, {RANGE['high']:g}]. The oblivious attack sees tolerance "
        f"{TOLERANCE:g}; "
        f"the adaptive one the mean over {DRAWS} draws of its own, the same throughout. Judged under {JUDGED} draws that no "
        f"attack has "
        "seen, averaged per image, on images that were right before. Extra L2: on images that both broke.",
    )


def evasion_table(images: int, calibration: int, detectors: Sequence[str]) -> TablePart:
    """Share of images that end up misclassified and accepted, by what the attacker knows."""
    rows = (Row(label=(name, f"{100 * one:g} %"), detector=name, alarms=one) for name in detectors for one in ALARMS)
    return TablePart(
        title="Success against a net with a detector",
        heads=("detector", "alarms allowed"),
        rows=tuple(rows),
        columns=(
            Column(head="false alarms", metric="false alarms", measure="scores"),
            Column(head="PGD, oblivious", metric="evasion", attack="PGD", measure="scores"),
            Column(head="PGD, adaptive", metric="success", attack="PGD, past"),
            Column(head="C&W, oblivious", metric="evasion", attack="C&W, fast", measure="scores"),
            Column(head="C&W, adaptive", metric="success", attack="C&W, past"),
        ),
        note=f"{images} images; success: misclassified, and accepted by the detector. PGD in an L-inf ball of {EPSILON:g}; "
        f"C&W without "
        f"limit. Thresholds were set on {calibration} other clean images; a vote has whole steps, so it alarms less than allowed. "
        "Adaptive: has "
        "the detector, its threshold and its gradient.",
    )


def distance_table(detectors: Sequence[str]) -> TablePart:
    """What it costs C&W to pass each detector."""
    plain = Cell(attack="C&W, fast", model="net")
    rows = (
        Row(label=(name, f"{100 * one:g} %"), attack="C&W, past", detector=name, alarms=one, other=plain)
        for name in detectors
        for one in ALARMS
    )
    return TablePart(
        title="What passing a detector costs C&W",
        heads=("detector", "alarms allowed"),
        rows=tuple(rows),
        columns=(
            Column(head="L2, oblivious", metric="L2", of="other"),
            Column(head="L2, adaptive", metric="L2"),
            Column(head="extra L2", metric="L2", minus="other", show="3"),
            Column(head="images", metric="L2", minus="other", show="n"),
        ),
        note="Means over images broken; extra over so many images that both broke.",
    )


def work_table(images: int) -> TablePart:
    """Work of the solver before and after the attack on it, and with a limit, by the attack's radius."""
    clean = Cell(measure="clean, first images", model="net")
    rows = [Row(label=("clean", "none"), measure="clean, first images", model="net")]
    for radius in RADII:
        attacked = {"attack": "slowdown", "epsilon": radius, "measure": "slowed"}
        rows += [
            Row(
                label=(f"attacked, radius {radius:g}", cap),
                model=model,
                other=clean if model == "net" else None,
                **attacked,
            )
            for model, cap in (("net", "none"), ("capped", "steps of the costliest clean image"))
        ]
    return TablePart(
        title="An attack on the solver's work",
        heads=("images", "cap"),
        rows=tuple(rows),
        columns=(
            Column(head="mean NFE", metric="NFE"),
            Column(head="largest NFE", metric="largest NFE", show="plain"),
            Column(head="work, times clean", metric="NFE", over="other", show="2"),
            Column(head="abstention", metric="abstention"),
        ),
        note=f"At tolerance {TOLERANCE:g}, {images} images, L-inf balls. An answer that the cap stopped says so in its "
        f"status, and counts "
        "as none.",
    )
