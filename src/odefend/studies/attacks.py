"""The attacks on trial: beside Foolbox, in bfloat16, against a random tolerance, against detectors, and on the solver's work."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from odefend.experiments import (
    AttackPart,
    DataPart,
    DerivedPart,
    DetectorPart,
    Experiment,
    MeasurePart,
    ModelPart,
)
from odefend.studies.attack_tables import (
    ALARMS,
    DETECTORS,
    DRAWS,
    EPSILON,
    JUDGED,
    RADII,
    RANGE,
    RMS,
    STEPS,
    TOLERANCE,
    TOLERANCES,
    distance_table,
    evasion_table,
    foolbox_table,
    precision_table,
    random_table,
    work_table,
)

PUBLISHED = {"steps": 100, "binary_search_steps": 5, "learning_rate": 0.05, "initial_constant": 0.01}
FAST = {"steps": 40, "binary_search_steps": 4, "learning_rate": 0.1, "initial_constant": 1.0}


def attacks(
    images: int = 200,
    net: str = "mnist-oon",
    data: str = "mnist",
    pixels: int = 28 * 28,
    search: Mapping[str, Any] = PUBLISHED,
    fast: Mapping[str, Any] = FAST,
    calibration: int = 200,
    detectors: Sequence[str] = DETECTORS,
) -> Experiment:
    """So many test images for most of it; half, a quarter or an eighth where every gradient costs several solves."""
    half, quarter, eighth = (max(1, images // part) for part in (2, 4, 8))
    return Experiment(
        name="attacks",
        title=f"Attacks on {net}",
        data={
            "test": DataPart(set=data, count=images, sample=0),
            "calibration": DataPart(set=data, split="validation", count=calibration),
        },
        models={
            "net": ModelPart(net=net, tolerance=TOLERANCE),
            "over tolerances": ModelPart(net=net, tolerance=TOLERANCES),
            "random": ModelPart(
                net=net, tolerance=TOLERANCE, defense={"name": "random-tolerance", "distribution": RANGE}
            ),
            "capped": ModelPart(net=net, tolerance=TOLERANCE, max_steps="$cap"),
        },
        detectors={name: DetectorPart(detector=name, model="net") for name in detectors},
        attacks={
            **beside_foolbox(pixels, search),
            "C&W, bfloat16": cw({**search, "search_precision": "bfloat16"}, count=half),
            **against_random_tolerance(fast, quarter),
            **past_detectors(fast, eighth, detectors),
            "slowdown": AttackPart(
                attack="availability", settings={"steps": STEPS}, epsilon=RADII, on="net", count=quarter
            ),
        },
        measures={
            "clean": MeasurePart(measure="predict", models="net"),
            "clean, first images": MeasurePart(measure="predict", models="net", count=quarter),
            "over tolerances": MeasurePart(
                measure="predict",
                models="over tolerances",
                images=("C&W", "C&W, bfloat16", "C&W, Foolbox"),
                pairing="each",
            ),
            "drawn": MeasurePart(
                measure="predict",
                models="random",
                images=("clean", *against_random_tolerance(fast, 1)),
                pairing="each",
                draws=JUDGED,
            ),
            "slowed": MeasurePart(measure="predict", models=("net", "capped"), images="slowdown", pairing="each"),
            "scores": MeasurePart(measure="score", images=("clean", "PGD", "C&W, fast")),
        },
        derived={"cap": DerivedPart(value="step-cap", of="clean")},
        tables=(
            foolbox_table(images),
            precision_table(half),
            random_table(),
            evasion_table(eighth, calibration, detectors),
            distance_table(detectors),
            work_table(quarter),
        ),
    )


def cw(settings: Mapping[str, Any], on: str = "net", **other: Any) -> AttackPart:
    """C&W on a model."""
    return AttackPart(attack="carlini-wagner", settings=settings, on=on, **other)


def beside_foolbox(pixels: int, search: Mapping[str, Any]) -> dict[str, AttackPart]:
    """The same settings here and there: the search for the nearest image, and steps in balls of three norms. What Foolbox 1.8 and
    2.0 called L2 is RMS here; in Foolbox 3 it is an L2 ball of radius times the root of the number of pixels."""
    names = {"learning_rate": "stepsize", "initial_constant": "initial_const"}
    theirs = {names.get(key, key): value for key, value in search.items()} | {"confidence": 0.0, "abort_early": True}

    def bim(norm: str, radius: float) -> AttackPart:
        settings = {"steps": STEPS, "step_size": radius / 5, "early_stop": False, "norm": norm}
        return AttackPart(attack="bim", settings=settings, epsilon=radius, on="net")

    def foolbox_bim(norm: str, radius: float) -> AttackPart:
        steps = {"steps": STEPS, "abs_stepsize": radius / 5, "random_start": False}
        settings = {"attack": f"{norm}BasicIterativeAttack", "settings": steps}
        return AttackPart(attack="foolbox", settings=settings, epsilon=radius, on="net")

    length = RMS * math.sqrt(pixels)
    return {
        "C&W": cw(search),
        "C&W, Foolbox": AttackPart(
            attack="foolbox", settings={"attack": "L2CarliniWagnerAttack", "settings": theirs}, on="net"
        ),
        "BIM": bim("linf", EPSILON),
        "BIM, Foolbox": foolbox_bim("Linf", EPSILON),
        "BIM, RMS": bim("rms", RMS),
        "BIM, L2": bim("l2", length),
        "BIM, L2, Foolbox": foolbox_bim("L2", length),
    }


def against_random_tolerance(fast: Mapping[str, Any], count: int) -> dict[str, AttackPart]:
    """Without and with knowing that the tolerance will be drawn: the net as trained, or an expectation over draws."""
    pgd = {"steps": STEPS // 2, "early_stop": False}
    return {
        "PGD, oblivious": AttackPart(attack="pgd", settings=pgd, epsilon=EPSILON, on="net", role="oblivious"),
        "PGD, adaptive": AttackPart(
            attack="pgd", settings=pgd, epsilon=EPSILON, on="random", draws=DRAWS, role="adaptive"
        ),
        "C&W, oblivious": cw(fast, count=count, role="oblivious"),
        "C&W, adaptive": cw(fast, count=count, on="random", draws=DRAWS, role="adaptive"),
    }


def past_detectors(fast: Mapping[str, Any], count: int, detectors: Sequence[str]) -> dict[str, AttackPart]:
    """Without and with knowing the detector and its threshold."""
    knowing = {"knowing": tuple(detectors), "alarms": ALARMS, "role": "adaptive", "count": count}
    pgd = {"attack": "pgd", "settings": {"steps": STEPS}, "epsilon": EPSILON, "on": "net"}
    return {
        "PGD": AttackPart(**pgd, count=count, role="oblivious"),
        "PGD, past": AttackPart(**pgd | knowing),
        "C&W, fast": cw(fast, count=count, role="oblivious"),
        "C&W, past": cw(fast, **knowing),
    }
