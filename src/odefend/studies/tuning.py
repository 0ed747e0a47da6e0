"""Tuning a defense: settings chosen on validation images, and what they are worth on test images beside noise of equal dose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from odefend.attacks import ATTACKS, PRESETS
from odefend.defenses.candidates import candidates
from odefend.engine import DefenseSpec, as_trained
from odefend.engine.specs import data_of
from odefend.experiments import (
    AttackPart,
    Cell,
    ClaimPart,
    Column,
    DataPart,
    DerivedPart,
    Experiment,
    MeasurePart,
    ModelPart,
    Row,
    TablePart,
    run,
)
from odefend.experiments.derive import derive
from odefend.experiments.tuned import check_accuracy_drop
from odefend.ledger import canonical
from odefend.metrics import Rows
from odefend.progress import Progress
from odefend.report.experiment_page import Report
from odefend.report.words import words
from odefend.studies.robustness import knowing_the_defense

NOISE, NOISE_LEVELS = "noise of equal dose", (0.003, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
"""The control, and the standard deviations of input noise between which its own is found."""


def tuning(
    net: str,
    defense: str,
    settings: Sequence[Mapping[str, Any]] | None = None,
    attack: str = "fast",
    epsilon: float = 0.1,
    max_accuracy_drop: float = 0.01,
    images: int = 200,
    steps: int = 25,
    followed: tuple[int, int] = (6, 24),
    draws: int = 10,
) -> Experiment:
    """Which of some `settings` of a defense (default: its `candidates`) to use: of those that cost at most `max_accuracy_drop` of
    clean accuracy the most robust to adaptive PGD of so many `steps` in an L-inf ball of radius `epsilon`, on validation images. A
    random defense is attacked along few or many draws (`followed`), and judged under `draws` others.

    The chosen one, noise of equal dose and the bare net then meet the same attacks on test images. `attack` does not know the
    defense, and chooses nothing. So many `images` of each split are clean; half of them meet that attack, a quarter the adaptive
    ones.
    """
    check_accuracy_drop(max_accuracy_drop)
    tried = candidates(defense, as_trained(net).net_itself) if settings is None else settings
    final = ("net", "tuned", NOISE)
    adaptive: dict[str, Any] = {"epsilon": epsilon, "steps": steps, "followed": followed, "count": max(1, images // 4)}
    choosing = {
        f"{attacked}, validation": part.model_copy(update={"data": "validation"})
        for attacked, part in knowing_the_defense(("admissible",), "net", **adaptive).items()
    }
    testing = knowing_the_defense(final, "net", **adaptive)
    robust: dict[str, Any] = {
        "metric": "robust accuracy",
        "measure": ("test", "test, adaptive"),
        "attack": tuple(testing),
    }
    oblivious = AttackPart(on="net", role="oblivious", count=max(1, images // 2), **_in_ball(attack, epsilon))
    predict = partial(MeasurePart, measure="predict", draws=draws)
    dose = {"model": "tuned", "reference": "net", "noise": "noises"}
    budget = {"candidates": "candidates", "reference": "net", "max_accuracy_drop": max_accuracy_drop}
    return Experiment(
        name=f"tune-{defense}",
        title=f"Tuning {defense} of {net}",
        data={
            "validation": DataPart(set=data_of(net), split="validation", count=images, sample=0),
            "test": DataPart(set=data_of(net), count=images, sample=0),
        },
        models={
            "net": ModelPart(net=net),
            "candidates": ModelPart(net=net, defense=tuple({"name": defense, **one} for one in tried)),
            "noises": ModelPart(net=net, defense={"name": "input-noise", "sigma": NOISE_LEVELS}),
            "admissible": ModelPart(net=net, defense="$admissible"),
            "tuned": ModelPart(net=net, defense="$tuned"),
            NOISE: ModelPart(net=net, defense={"name": "input-noise", "sigma": "$dose"}),
        },
        attacks={
            "oblivious": oblivious,
            "oblivious, validation": oblivious.model_copy(update={"data": "validation"}),
            **choosing,
            **testing,
        },
        measures={
            "validation": predict(models=("net", "candidates", "noises"), data="validation"),
            "validation, oblivious": predict(models="candidates", images="oblivious, validation", pairing="each"),
            "validation, adaptive": predict(models="admissible", images=tuple(choosing)),
            "validation, tuned": predict(models="tuned", data="validation"),
            "test": predict(models=final),
            "test, oblivious": predict(models=final[1:], images="oblivious", pairing="each"),
            "test, adaptive": predict(models=final, images=tuple(testing)),
        },
        derived={
            "admissible": DerivedPart(value="admissible", of="validation", settings=budget),
            "tuned": DerivedPart(value="tuned", of=("validation", "validation, adaptive"), settings=budget),
            "dose": DerivedPart(value="equal-noise", of=("validation", "validation, tuned"), settings=dose),
        },
        tables=(
            candidate_table(defense, tried, tuple(choosing), robust, max_accuracy_drop),
            final_table(net, defense, final, robust),
        ),
        claims=tuple(
            ClaimPart(
                sentence=f"The tuned defense is more robust than {words}.",
                left=Cell(model="tuned", **robust),
                relation=">",
                right=Cell(model=model, **robust),
            )
            for model, words in (("net", "the bare net"), (NOISE, NOISE))
        ),
    )


def _in_ball(attack: str, epsilon: float) -> dict[str, Any]:
    """An attack by its name, in a ball of that radius if it is one in a ball."""
    kind = type(PRESETS[attack].attack) if attack in PRESETS else ATTACKS.get(attack)
    has_radius = kind is not None and "epsilon" in {field.name for field in fields(kind)}
    return {"attack": attack, **({"epsilon": epsilon} if has_radius else {})}


def candidate_table(
    defense: str,
    tried: Sequence[Mapping[str, Any]],
    choosing: tuple[str, ...],
    robust: Mapping[str, Any],
    max_accuracy_drop: float,
) -> TablePart:
    """What came of each candidate on validation images, and of the chosen one on test images."""
    net = Cell(model="net", measure="validation")
    texts = {DefenseSpec(defense, canonical(one)).text: words(dict(one)) or "as it is" for one in tried}
    clean: dict[str, Any] = {"metric": "accuracy", "model": "candidates", "measure": "validation"}
    known: dict[str, Any] = {"model": ("candidates", "admissible"), "measure": ("validation", "validation, adaptive")}
    return TablePart(
        title=f"Candidates for {defense}",
        heads=("settings",),
        rows=tuple(Row(label=label, defense=text, other=net) for text, label in texts.items()),
        columns=(
            Column(head="clean accuracy", **clean),
            Column(head="minus the bare net", minus="other", **clean),
            Column(head="recovered", metric="recovered", model="candidates", measure="validation, oblivious"),
            Column(head="robust accuracy", metric="robust accuracy", attack=choosing, **known),
            Column(head="clean accuracy, test", metric="accuracy", model="tuned", measure="test"),
            Column(head="robust accuracy, test", model="tuned", **robust),
        ),
        note=f"Chosen on validation images: the most robust of those that cost at most {100 * max_accuracy_drop:g} % of clean "
        "accuracy. It alone has numbers on test images. Recovered: of the images of an attack that does not know the defense. "
        "Robust accuracy: the worst case for each image under adaptive PGD in a ball, which other draws tell than those that "
        'judge; "-": costs too much, and was not attacked.',
    )


def final_table(net: str, defense: str, models: tuple[str, ...], robust: Mapping[str, Any]) -> TablePart:
    """The chosen settings beside the bare net and noise of equal dose."""
    return TablePart(
        title=f"Tuned {defense} of {net} on test images",
        heads=("model",),
        rows=tuple(
            Row(label=model, model=model, other=None if model == "net" else Cell(model="net")) for model in models
        ),
        columns=(
            Column(head="clean accuracy", metric="accuracy", measure="test"),
            Column(head="recovered", metric="recovered", measure="test, oblivious"),
            Column(head="robust accuracy", **robust),
            Column(head="minus the bare net", minus="other", **robust),
        ),
        note=f"{NOISE.capitalize()}: input noise that moves the margins of clean images as much as the defense does. All meet "
        "the same attacks.",
    )


@dataclass(frozen=True)
class Tuned:
    """What was chosen: a `defense`, None where each costs too much, and the standard deviation of noise of equal dose; and the
    `report` of all that was measured."""

    defense: DefenseSpec | None
    noise: float | None
    report: Report


def tune(experiment: Experiment, folder: Path, progress: Progress, workers: int | None = None) -> Tuned:
    """Run a `tuning`. What was stopped goes on when called again."""
    rows = Rows.read(run(experiment, folder, progress, workers), experiment.name)
    chosen, noise = (derive(experiment, name, rows) for name in ("tuned", "dose"))
    return Tuned(next(iter(chosen), None), next(iter(noise), None), Report(experiment, rows, folder))
