"""The demo: two small nets trained on real digits, attacked, judged over tolerances, and set against the controls."""

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
    SourcePart,
)
from odefend.studies.demo_claims import claims, figures
from odefend.studies.demo_tables import (
    CALIBRATION,
    CLEAN,
    CONTROL,
    CW,
    CW_CONTROL,
    EPSILON,
    EVERY,
    LOOSE,
    MARGIN,
    MATRIX,
    NET,
    NOISE,
    NOISES,
    RANGE,
    SCALES,
    STEPS,
    STRONG,
    TOLERANCE,
    TOLERANCES,
    VOTES,
    tables,
)  # fmt: skip

RADII, DRAWS = (0.05, 0.1, 0.15, 0.2, 0.3, 1.0), 5
SEARCH = {"initial_constant": 1.0}
"""The published C&W but for the constant it begins with: from 0.01 these nets' larger margins are reached in the fourth of the five
rounds, which leaves no round to bisect."""
ALL = {"early_stop": False}
"""All steps taken, since what is found at one tolerance is judged at others."""


def demo(
    images: int = 50,
    clean: int = CLEAN,
    calibration: int = CALIBRATION,
    search: Mapping[str, Any] = SEARCH,
    votes: Sequence[int] = VOTES,
) -> Experiment:
    """So many test images attacked; so many clean ones looked at, or as many where that is more."""
    return Experiment(
        name="demo",
        title="Does the solver's tolerance protect a Neural-ODE classifier?",
        data={
            "test": DataPart(set="digits", count=max(images, clean)),
            "calibration": DataPart(set="digits", split="validation", count=calibration),
        },
        models={
            NET: ModelPart(net=NET, tolerance=TOLERANCE),
            LOOSE: ModelPart(net=NET, tolerance=tuple(one for one in MATRIX if one != TOLERANCE)),
            CONTROL: ModelPart(net=CONTROL),
            EVERY: ModelPart(net=NET, tolerance=TOLERANCES),
            NOISE: ModelPart(net=NET, tolerance=TOLERANCE, defense={"name": "input-noise", "sigma": NOISES}),
            STRONG: ModelPart(net=NET, tolerance=TOLERANCE, defense={"name": "input-noise", "sigma": NOISES[-1]}),
        },
        detectors=detectors(votes),
        attacks=attacks(images, search),
        measures=measures(),
        derived={
            "vote-noise": DerivedPart(
                value="matched-noise", of="doses", settings={"reference": TOLERANCE, "within": RANGE}
            )
        },
        tables=tables(),
        figures=figures(),
        claims=claims(),
    )


def attacks(images: int, search: Mapping[str, Any]) -> dict[str, AttackPart]:
    """C&W; PGD up to a radius that holds every image; and what a weak attack would be beaten by: more steps, other gradients,
    another net's gradients."""

    def pgd(on: str | tuple[str, ...], epsilon: float | tuple[float, ...] = EPSILON, **other: Any) -> AttackPart:
        settings = {"steps": 20, **other.pop("settings", {})}
        return AttackPart(attack="pgd", settings=settings, epsilon=epsilon, on=on, count=images, **other)

    def cw(on: str) -> AttackPart:
        return AttackPart(attack="carlini-wagner", settings=search, on=on, count=images)

    return {
        CW: cw(NET),
        CW_CONTROL: cw(CONTROL),
        "PGD": pgd((NET, CONTROL), RADII),
        STEPS: pgd((NET, LOOSE), settings=ALL),
        "twice the steps": pgd((NET, CONTROL), settings={"steps": 40}),
        "PGD on the loose solve": pgd(LOOSE),
        "exact gradients": pgd((NET, LOOSE), source=SourcePart(gradient="exact")),
        "gradients of the solve at 1e-5": pgd((NET, LOOSE), source=SourcePart(tolerance=1e-5)),
        f"gradients of {CONTROL}": pgd(NET, source=CONTROL, settings=ALL, role="transfer"),
    }


def detectors(sizes: Sequence[int]) -> dict[str, DetectorPart]:
    """Votes over tolerances, votes of equal cost under noise of the same dose, and the margin of one pass."""
    over = {"distribution": {"low": RANGE[0], "high": RANGE[1]}}
    tolerance = {f"tolerance vote, V = {size}": ("tolerance-vote", {"defense": over, "votes": size}) for size in sizes}
    noisy = {"defense": {"sigma": "$vote-noise"}}
    noise = {f"noise vote, V = {size}": ("noise-vote", noisy | {"votes": size}) for size in sizes}
    every = {**tolerance, **noise, MARGIN: ("one-pass-margin", {})}
    return {name: DetectorPart(detector=kind, settings=settings, model=NET) for name, (kind, settings) in every.items()}


def measures() -> dict[str, MeasurePart]:
    """What is judged, traced and scored."""
    return {
        "clean": MeasurePart(measure="predict", models=(NET, LOOSE, CONTROL, EVERY)),
        "doses": MeasurePart(measure="predict", models=(EVERY, NOISE), data="calibration", draws=2),
        "recovered": MeasurePart(measure="predict", models=EVERY, images=CW, scales=SCALES),
        "pulled back": MeasurePart(measure="predict", models=(NET, CONTROL), images=(CW, CW_CONTROL), scales=0.95),
        "under noise": MeasurePart(measure="predict", models=NOISE, images=CW, draws=DRAWS),
        "under strong noise": MeasurePart(
            measure="predict", models=STRONG, images=("clean", CW), scales=SCALES, draws=DRAWS
        ),
        "matrix": MeasurePart(measure="predict", models=(NET, LOOSE), images=STEPS, pairing="each"),
        "trajectories": MeasurePart(measure="trace", images=STEPS),
        "scores": MeasurePart(measure="score", images=("clean", CW), scales=SCALES[:1] + SCALES[2:5]),
    }
