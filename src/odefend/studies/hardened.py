"""Nets trained to be robust beside twins trained on clean images: in L-inf balls under attacks of every kind, certified by
smoothing, and with a detector by which they reject."""

import math
from collections.abc import Mapping, Sequence

from odefend.experiments import (
    AttackPart,
    Cell,
    Column,
    DataPart,
    DetectorPart,
    Experiment,
    FigurePart,
    Line,
    MeasurePart,
    ModelPart,
    Row,
    TablePart,
)
from odefend.metrics.certified import provable
from odefend.studies.robustness import ALARMS, ALPHA, Effort, certificates, in_balls, past_rejection, radii, smoothed_by

EPSILONS, RADII = (0.1, 0.2, 0.3), (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
NETS = ("digits-oon-adversarial", "digits-oon", "digits-res-adversarial", "digits-res")
SMOOTHED = (
    ("digits-oon-noise", 0.25, "input"),
    ("digits-oon", 0.25, "input"),
    ("digits-res-noise", 0.25, "input"),
    ("digits-oon-state-noise", 0.5, "state"),
    ("digits-oon", 0.5, "state"),
)
REJECTING: dict[str, str] = dict.fromkeys(("digits-oon-ccat", "digits-res-ccat"), "confidence")
REJECTING |= dict.fromkeys(("digits-oon-adversarial", "digits-res-adversarial", "digits-oon"), "one-pass-margin")


def hardened(
    images: int = 200,
    data: str = "digits",
    nets: Sequence[str] = NETS,
    smoothed: Sequence[tuple[str, float, str]] = SMOOTHED,
    rejecting: Mapping[str, str] = REJECTING,
    effort: Effort = Effort(),  # noqa: B008
    shares: tuple[float, float, float] = (0.5, 1.0, 0.0),
    name: str = "hardened",
) -> Experiment:
    """`nets` are attacked on so many test images, those `smoothed` by noise of a standard deviation in the input or the state are
    certified, and those `rejecting` by a detector are attacked together with it. `shares` of the images: for attacks that take
    longer, for certificates, and for AutoAttack's standard version."""
    few, certified, standard = (math.ceil(share * images) for share in shares)
    rejection = {f"{how} of {net}": DetectorPart(detector=how, model=net) for net, how in rejecting.items()}
    proven, undefended = smoothed_by(smoothed), tuple(dict.fromkeys((*nets, *rejecting)))
    balls = in_balls(nets, EPSILONS, effort, few)
    past = past_rejection(rejection, EPSILONS[:2], effort, few) if rejecting else {}
    attacks = balls | {"C&W": AttackPart(attack=f"{data}-l2", on=tuple(nets), count=few)} | past
    if standard:
        attacks["AutoAttack"] = AttackPart(attack="autoattack", epsilon=max(EPSILONS), on=tuple(nets), count=standard)
    return Experiment(
        name=name,
        title=f"Nets trained to be robust, on {data}",
        data={
            "test": DataPart(set=data, count=images, sample=0),
            "calibration": DataPart(set=data, split="validation", count=effort.calibration, sample=0),
        },
        models={net: ModelPart(net=net) for net in undefended} | proven,
        detectors=rejection,
        attacks=attacks,
        measures={
            "clean": MeasurePart(measure="predict", models=undefended),
            "certified": certificates(proven, certified, effort),
            **({"scores": MeasurePart(measure="score")} if rejecting else {}),
        },
        tables=(
            ball_table(data, tuple(nets), tuple(balls), effort, few),
            distance_table(data, tuple(nets), few),
            *([autoattack_table(data, tuple(nets), tuple(balls))] if standard else []),
            certificate_table(data, tuple(proven), effort),
            *([rejection_table(data, rejection, tuple(past), effort)] if rejecting else []),
        ),
        figures=(
            FigurePart(
                title=f"Certified accuracy by radius on {data}",
                x="radius",
                y="certified accuracy",
                where=Cell(metric="certified", measure="certified"),
                lines=tuple(Line(label=model, model=model, radius=radii(smoothed, effort)) for model in proven),
            ),
        ),
    )


def hardened_mnist(images: int = 200) -> Experiment:
    """On MNIST, where a gradient costs more: from one start, and longer attacks and certificates on fewer images."""
    nets = ("mnist-mix-adversarial", "mnist-mix", "mnist-mix-matched-adversarial", "mnist-mix-matched")
    smoothed = (("mnist-mix-noise", 0.5, "input"), ("mnist-mix", 0.5, "input"))
    once, shares = Effort(restarts=1), (0.16, 0.5, 0.16)
    return hardened(images, "mnist", nets, smoothed, {}, once, shares, name="hardened-mnist")


def ball_table(data: str, nets: tuple[str, ...], attacks: tuple[str, ...], effort: Effort, few: int) -> TablePart:
    """Robust accuracy by net and radius, under each attack and under all."""
    surrogates = tuple(name for name in attacks if " along " in name or " from " in name)
    by = [Column(head=name, metric="robust accuracy", attack=name) for name in attacks if name not in surrogates]
    by.insert(2, Column(head="PGD along surrogates", metric="robust accuracy", attack=surrogates))
    return TablePart(
        title=f"Robust accuracy in L-inf balls on {data}",
        rows=("model", "epsilon"),
        heads=("net", "radius"),
        where=Cell(model=nets, attack=attacks, measure="clean"),
        columns=(
            Column(head="clean", metric="accuracy"),
            *by,
            Column(head="all attacks", metric="robust accuracy, all images"),
            Column(head="all attacks, on images that met each", metric="robust accuracy"),
        ),
        note=f"Of {{images}}. PGD: {effort.steps} steps, restarts: {effort.restarts}, on cross-entropy or the margin (the loss of "
        f"C&W). Surrogates: PGD of {effort.steps // 2} steps along other solves of an ODE net (1e-5, 0.1, rk4 in steps of 0.1) "
        f"and along another net. Through pyautoattack, on {few} images: Square of {effort.queries} queries, and APGD (on "
        f"cross-entropy, at targets) and FAB of {effort.auto_steps} steps; AutoAttack's standard version has 5000 and 100. All "
        "attacks: the worst case for each image over those that it met. Images that met no part of AutoAttack may look better than "
        "they are; the last column leaves them out.",
    )


def distance_table(data: str, nets: tuple[str, ...], images: int) -> TablePart:
    """How far C&W moves the images that fool each net."""
    return TablePart(
        title=f"Distances that C&W needs on {data}",
        rows=("model",),
        heads=("net",),
        where=Cell(model=nets, attack="C&W"),
        columns=(Column(head="success", metric="success"), Column(head="median L2", metric="median L2", show="2")),
        note=f"C&W by the preset {data}-l2, which minimizes L2 without a ball, on those of {images} test images that the net has "
        "right. In the median an image that was not broken is infinitely far. An upper bound: a longer search comes nearer.",
    )


def autoattack_table(data: str, nets: tuple[str, ...], attacks: tuple[str, ...]) -> TablePart:
    """Robust accuracy under the standard version of AutoAttack, to stand beside what is published of other nets."""
    return TablePart(
        title=f"Robust accuracy under AutoAttack on {data}",
        rows=("model",),
        heads=("net",),
        where=Cell(model=nets, attack="AutoAttack", epsilon=max(EPSILONS)),
        same_images=True,
        columns=(
            Column(head=f"AutoAttack, radius {max(EPSILONS):g}", metric="robust accuracy"),
            Column(head="and all attacks in this ball", metric="robust accuracy", attack=(*attacks, "AutoAttack")),
        ),
        note="On images that met each attack. AutoAttack: its standard version (Croce & Hein, arXiv 2003.01690).",
    )


def certificate_table(data: str, models: tuple[str, ...], effort: Effort) -> TablePart:
    """Certified accuracy by model and radius."""
    return TablePart(
        title=f"Certified accuracy on {data}",
        rows=("model",),
        heads=("net",),
        where=Cell(model=models, measure="certified"),
        columns=(
            *(Column(head=f"L2 radius {radius:g}", metric="certified", radius=radius) for radius in RADII),
            Column(head="abstention", metric="abstention"),
            Column(head="NFE per image", metric="NFE", show="plain"),
        ),
        note=f"Right and certified, of {{images}}; {effort.draws} draws, alpha {ALPHA:g}. So many draws prove no more than "
        f'{provable(effort.draws, ALPHA):.2f} sigma ("-": beyond that). Radii are of images: what is proven of states, and the '
        "most that can be, is divided by the norm of the stem. A net without a solver evaluates no field.",
    )


def rejection_table(
    data: str, rejection: Mapping[str, DetectorPart], attacks: tuple[str, ...], effort: Effort
) -> TablePart:
    """Robust accuracy with rejection, under attacks on net and detector together."""
    rows = (
        Row(label=(one.model, one.detector, f"{100 * alarms:g} %"), model=one.model, detector=name, alarms=alarms)
        for name, one in rejection.items()
        for alarms in ALARMS
    )
    return TablePart(
        title=f"Rejection on {data}, under attacks on net and detector together",
        heads=("net", "detector", "alarms allowed"),
        rows=tuple(rows),
        where=Cell(measure=("clean", "scores"), attack=attacks),
        columns=(
            Column(head="clean images rejected", metric="false alarms"),
            Column(head="clean accuracy", metric="accuracy"),
            *(
                Column(head=f"robust, radius {radius:g}", metric="robust accuracy with rejection", epsilon=radius)
                for radius in EPSILONS[:2]
            ),
        ),
        note="Robust: of the attacked images, those that the net has right and the detector accepts, and for which no attack finds "
        f"an image that is wrong and accepted: PGD of {effort.steps} steps with the gradients joined in two ways, restarts: "
        f"{effort.restarts}, and of {5 * effort.steps // 2} small steps with momentum on the margin, from the clean image. "
        f"Thresholds: conformal, from {effort.calibration} validation images.",
    )
