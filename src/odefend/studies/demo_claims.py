"""The figures of the demo, and its claims."""

from typing import Any

from odefend.experiments import Cell, ClaimPart, FigurePart, Line
from odefend.studies.demo_tables import (
    CONTROL,
    CW,
    CW_CONTROL,
    EQUAL,
    EVERY,
    MARGIN,
    MATRIX_CELL,
    NET,
    NOISE_VOTE,
    NOISES,
    OTHERS,
    STEPS,
    STRONG,
    TOLERANCE,
    TOLERANCES,
    VOTE,
    VOTES,
)


def figures() -> tuple[FigurePart, ...]:
    """From what the attacks do to what is left of the tolerance."""
    back: dict[str, Any] = {"metric": "recovered", "measure": "recovered", "model": EVERY}
    noise: dict[str, Any] = {"metric": "recovered", "measure": "under strong noise", "model": STRONG, "dash": ":"}
    equal: dict[str, Any] = {"metric": "recovered by noise of equal dose", "scale": 1.0, "other": EQUAL, "dash": ":"}
    measures = ("doses", "recovered", "under noise")
    curves = (
        Line(label="clean images", metric="accuracy", model=EVERY, measure="clean"),
        Line(label="C&W images, s = 1", scale=1.0, **back),
        Line(label="C&W images, s = 1.1", scale=1.1, dash="--", **back),
        Line(label="C&W images, noise of equal dose", model=EVERY, tolerance=OTHERS, measure=measures, **equal),
    )
    scaled = [Line(label=f"tolerance {one:g}", tolerance=one, **back) for one in OTHERS]
    scaled.append(Line(label=f"noise, sigma {NOISES[-1]:g}", **noise))
    return (
        FigurePart(
            title="Accuracy by tolerance",
            y="classified rightly",
            where=Cell(attack=CW),
            lines=curves,
            caption="Where the band of the C&W images at s = 1 and that of noise overlap, these images cannot tell the tolerance "
            "from noise of its dose. Dashed: after the attacker went 10 % further.",
        ),
        FigurePart(
            title="The s-curve",
            x="scale",
            y="recovered",
            where=Cell(attack=CW),
            lines=tuple(scaled),
            caption="What each tolerance recovers as the perturbation is multiplied by s (intervals are in the table).",
        ),
        FigurePart(
            title="PGD success by radius",
            x="epsilon",
            y="success",
            where=Cell(attack="PGD", metric="success"),
            lines=(Line(label=NET, model=NET), Line(label=CONTROL, model=CONTROL)),
            caption="A ball of L-inf radius 1 holds every image, so anything below 100 % there would be a failure of the attack.",
        ),
        FigurePart(
            title="Robust accuracy by tolerance of attack and test",
            kind="heat",
            where=MATRIX_CELL.model_copy(update={"attack": STEPS}),
        ),
        FigurePart(
            title="How attacked states leave their originals",
            kind="trajectories",
            where=Cell(attack=STEPS, measure="trajectories"),
            caption="PGD, all steps, solved at the tolerance that was attacked: means over the images that fooled the net, of the "
            "states h(t), of what the head's normalization makes of them, and of the angle between them.",
        ),
        FigurePart(
            title="ROC of the detectors",
            kind="roc",
            where=Cell(attack=CW, measure="scores", scale=(1.0, 1.05)),
            lines=tuple(
                Line(label=name, detector=name)
                for name in (*(f"tolerance vote, V = {one}" for one in VOTES), NOISE_VOTE, MARGIN)
            ),
            caption="Clean images accepted against attacked images accepted, as Carrara et al. draw it: up and left is better.",
        ),
        FigurePart(
            title="NFE by tolerance",
            y="NFE per clean image",
            lines=(Line(label=NET, metric="NFE", model=EVERY, measure="clean"),),
        ),
    )


def claims() -> tuple[ClaimPart, ...]:
    """What would have to hold if tolerances protected, and what speaks against it."""
    tight, tighter, loose = TOLERANCES[1], TOLERANCES[0], TOLERANCES[-1]

    def back(at: float, scale: float = 1.0) -> Cell:
        return Cell(metric="recovered", model=EVERY, attack=CW, tolerance=at, measure="recovered", scale=scale)

    def strong(scale: float) -> Cell:
        return Cell(metric="recovered", model=STRONG, attack=CW, measure="under strong noise", scale=scale)

    def area(detector: str, scale: float = 1.0) -> Cell:
        return Cell(metric="AUROC", detector=detector, attack=CW, measure="scores", scale=scale)

    def attacked(at: float) -> Cell:
        return MATRIX_CELL.model_copy(update={"attack": STEPS, "attacked_at": at, "tolerance": TOLERANCE})

    def clean(at: float) -> Cell:
        return Cell(metric="accuracy", model=EVERY, tolerance=at, measure="clean")

    distance = [Cell(metric="L2", model=model, attack=attack) for model, attack in ((NET, CW), (CONTROL, CW_CONTROL))]
    dose = {"metric": "recovered minus noise of equal dose", "attack": CW, "scale": 1.0}
    at_tight = Cell(model=EVERY, tolerance=tight, measure=("doses", "recovered")).model_copy(update=dose)
    loud = f"noise of sigma {NOISES[-1]:g}"
    higher = (
        (f"Breaking {NET} takes a larger L2 perturbation than breaking {CONTROL}.", *distance),
        (f"Judging at {tight:g} recovers more than noise of equal dose.", at_tight, EQUAL.model_copy(update=dose)),
        (f"Judging at {tight:g} recovers more than {loud}.", back(tight), strong(1.0)),
        (f"At s = 1.25, judging at {loose:g} recovers more than {loud}.", back(loose, 1.25), strong(1.25)),
        (
            f"At {TOLERANCE:g}, images attacked at {loose:g} leave more right than those attacked there.",
            attacked(loose),
            attacked(TOLERANCE),
        ),
        ("A vote over tolerances detects better than the margin of one pass.", area(VOTE), area(MARGIN)),
        ("A vote over tolerances detects better than one of equal cost under noise.", area(VOTE), area(NOISE_VOTE)),
        ("So it does where the attacker goes 5 % further.", area(VOTE, 1.05), area(NOISE_VOTE, 1.05)),
    )
    equal = (
        (f"Judging at {loose:g} recovers as much at s = 1.25 as at s = 1.", back(loose, 1.25), back(loose)),
        (f"Judging at {tight:g} recovers what judging at {tighter:g} does.", back(tight), back(tighter)),
        (f"Judging at {loose:g} costs no clean accuracy.", clean(loose), clean(TOLERANCE)),
    )
    found = [ClaimPart(sentence=text, left=left, relation=">", right=right) for text, left, right in higher]
    found += [
        ClaimPart(sentence=text, left=left, relation="=", right=right, margin=0.05) for text, left, right in equal
    ]
    return tuple(found)
