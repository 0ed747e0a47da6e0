"""The detectors on trial: before attackers who do not know of them and scale their images, and before attackers who know each."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from odefend.detectors import DETECTORS
from odefend.experiments import AttackPart, DataPart, DetectorPart, Experiment, MeasurePart, ModelPart
from odefend.experiments.parts import Combination
from odefend.studies.detector_tables import (
    ALARMS,
    BASELINE,
    NOISE,
    SCALES,
    caught,
    claims,
    everyday,
    ranking,
    roc,
    success,
)

TOLERANCE = 1e-3
BENIGN = ("blur-0.5", "gamma-0.8", "jpeg-75-444")
"""What happens to pictures in everyday use, which is no attack."""
SEARCH = AttackPart(
    attack="carlini-wagner",
    settings={"steps": 60, "binary_search_steps": 4, "learning_rate": 0.1, "initial_constant": 1.0},
    on="net",
    role="oblivious",
)
SETTINGS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "noise-vote": (),
    "noise-drop": ({"sigma": 0.02, "draws": 19}, {"sigma": 0.1, "draws": 19}),
    "tolerance-vote": ({"votes": 20},),
    "flow-latent": ({}, {"levels": "all"}),
}
"""Of detectors that are not, or not only, tried as they usually are. Noise takes as many passes as the vote over tolerances,
which has to beat it; of its two detectors one is tried."""


def labelled(kind: str, settings: Mapping[str, Any]) -> str:
    """What tables call a detector: with those of its settings that are not the usual ones."""
    return ", ".join((kind, *(f"{key} {value}" for key, value in settings.items())))


EVERY = {labelled(kind, one): (kind, one) for kind in DETECTORS for one in SETTINGS.get(kind, ({},))}
"""Detectors with their settings by their labels."""
OF_SOLVER = tuple(name for name, (kind, _) in EVERY.items() if DETECTORS[kind].of_solver)
CONTROLS = (BASELINE, NOISE)


def detectors(
    images: int = 300,
    name: str = "detectors",
    net: str = "digits-oon",
    data: str = "digits",
    tried: Mapping[str, tuple[str, Mapping[str, Any]]] = EVERY,
    search: AttackPart = SEARCH,
    pgd: Mapping[str, Any] = {"steps": 40, "restarts": 2},
    combinations: tuple[Combination, ...] = ("selective", "joint"),
    alarms: tuple[float, ...] = ALARMS,
    adaptive: int = 6,
    nearest: int = 15,
    clean: int = 500,
    benign: int = 100,
    calibration: int = 200,
    learn: int = 1000,
    lessons: int = 300,
    shard: int = 50,
) -> Experiment:
    """So many test images are attacked by C&W, which does not know the detectors; one in `adaptive` by PGD, and one in `nearest` by
    C&W, that know each, with its threshold for each of these shares of false `alarms`.

    Thresholds are set on `calibration` validation images. Detectors `learn` from training images, and supervised ones from
    `lessons` of them attacked by PGD in an L2 ball: an attack that they are not tried on. False alarms are counted on `clean` test
    images, and on `benign` ones changed as in everyday use.
    """
    ball: dict[str, Any] = {
        "attack": "pgd",
        "settings": pgd,
        "epsilon": 0.1,
        "on": "net",
        "count": max(1, images // adaptive),
    }
    aware: dict[str, Any] = {"knowing": tuple(tried), "alarms": alarms, "role": "adaptive"}
    taught = {"norm": "l2", "steps": pgd["steps"], "early_stop": False}
    supervised = any(DETECTORS[kind].supervised for kind, _ in tried.values())
    return Experiment(
        name=name,
        title=f"Detectors beside {net}",
        data={
            "test": DataPart(set=data, count=max(clean, images), sample=0),
            "calibration": DataPart(set=data, split="validation", count=calibration, sample=0),
            "learn": DataPart(set=data, split="train", count=learn, sample=0),
            "lessons": DataPart(set=data, split="train", count=lessons, sample=0),
            **{change: DataPart(set=data, count=benign, sample=0, change=change) for change in BENIGN},
        },
        models={"net": ModelPart(net=net, tolerance=TOLERANCE)},
        detectors={label: beside_net(*one) for label, one in tried.items()},
        attacks={
            **(
                {"lessons": AttackPart(attack="pgd", settings=taught, epsilon=1.0, on="net", data="lessons")}
                if supervised
                else {}
            ),
            "C&W": search.model_copy(update={"count": images}),
            "PGD": AttackPart(**ball, role="oblivious"),
            "PGD, adaptive": AttackPart(**ball, **aware, combination=combinations),
            "C&W, adaptive": search.model_copy(update={"count": max(1, images // nearest)} | aware),
        },
        measures={
            "scores": MeasurePart(measure="score", images=("clean", "PGD")),
            "scaled": MeasurePart(measure="score", images="C&W", scales=SCALES),
            "everyday": MeasurePart(measure="score", data=BENIGN),
            "resampled": MeasurePart(measure="score", images=("PGD, adaptive", "C&W, adaptive"), resampled=True),
        },
        tables=(
            ranking(net, tuple(tried), f"At tolerance {TOLERANCE:g}, {max(clean, images)} clean test images"),
            caught(net, calibration),
            everyday(net, BENIGN),
            success(net, "C&W", tuple(tried), "C&W without limit"),
            success(net, "PGD", tuple(tried), f"PGD in an L-inf ball of {ball['epsilon']:g}, {pgd['steps']} steps"),
        ),
        figures=(roc(net, tuple(label for label in tried if label in (*CONTROLS, *OF_SOLVER))),),
        claims=claims(tuple(tried)),
        shard=shard,
    )


def beside_net(kind: str, settings: Mapping[str, Any]) -> DetectorPart:
    """A detector, with what it learns from if it does."""
    how = DETECTORS[kind]
    learn, attacked = "learn" if how.learns else None, ("lessons",) if how.supervised else ()
    return DetectorPart(detector=kind, settings=settings, model="net", learn=learn, attacked=attacked)


detectors_matched = partial(
    detectors,
    name="detectors-matched",
    net="digits-res",
    tried={label: one for label, one in EVERY.items() if label not in OF_SOLVER},
)
"""Those that need no solver, beside the matched net without one."""

detectors_mnist = partial(
    detectors,
    name="detectors-mnist",
    net="mnist-oon",
    data="mnist",
    tried={label: EVERY[label] for label in (*CONTROLS, *OF_SOLVER)},
    search=SEARCH.model_copy(update={"attack": "mnist-l2", "settings": {}}),
    pgd={"steps": 30},
    combinations=("selective",),
    alarms=ALARMS[1:],
    adaptive=3,
    nearest=37,
    calibration=500,
    learn=500,
    shard=25,
)
"""Those that look at the solver, on MNIST, beside the controls. Attackers who know them aim at the larger share of alarms."""
