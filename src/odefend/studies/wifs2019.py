"""The basic iterative attack on an ODE net, by its radius and the solver's tolerance: Carrara et al., WIFS 2019
(doi 10.1109/WIFS47025.2019.9035109), beside the matched ResNet and beside what is in print."""

from itertools import product
from typing import Any

from odefend.experiments import (
    AttackPart,
    Cell,
    ClaimPart,
    Column,
    DataPart,
    Experiment,
    FigurePart,
    Line,
    MeasurePart,
    ModelPart,
    Row,
    SourcePart,
    TablePart,
)

NET, MATCHED, AT = "mnist-oon", "mnist-oon-matched", 1e-3
TOLERANCES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RADII = (0.05, 0.1, 0.3)
PRINTED = {
    "BIM": ((2, 2, 1, 1, 2), (12, 8, 4, 5, 4), (96, 87, 66, 64, 65)),
    "BIM, RMS": ((27, 19, 9, 8, 6), (87, 75, 57, 54, 46), (100, 99, 94, 92, 96)),
}
"""Success in percent by radius and tolerance: table II (OON)."""
SOURCE = "Carrara et al., WIFS 2019, table II (OON), in percent"


def wifs2019(images: int = 1000) -> Experiment:
    """So many of the first test images, as in the paper; they are no random sample. Of what is beside it, fewer."""
    return Experiment(
        name="wifs2019",
        title="MNIST OON and its matched ResNet under the basic iterative attack",
        data={"test": DataPart(set="mnist", count=images)},
        models={
            "net": ModelPart(net=NET, tolerance=AT),
            "matched": ModelPart(net=MATCHED),
            "over tolerances": ModelPart(net=NET, tolerance=TOLERANCES),
            "strict and loose": ModelPart(net=NET, tolerance=(AT, 1.0)),
            "loose": ModelPart(net=NET, tolerance=(0.1, 1.0)),
        },
        attacks=attacks(images),
        measures={"clean": MeasurePart(measure="predict", models=("over tolerances", "matched"))},
        tables=(by_the_adjoint(), nets(), beside_print()),
        figures=(by_tolerance(),),
        claims=(falls("BIM", 0.3), falls("BIM, RMS", 0.1)),
    )


def attacks(images: int) -> dict[str, AttackPart]:
    """As published: ten steps of .05 from the clean image, stopped at the first success. What that paper calls L2 is a root of a
    mean, here RMS: on MNIST a radius of .1 is an L2 norm of 2.8. Its gradients came from the adjoint at the attacked tolerance.
    Beside it, what it may have missed: more steps, and gradients of a tighter solve."""
    some, few = max(1, images // 5), max(1, images // 10)
    everywhere = ("over tolerances", "matched")

    def bim(
        on: tuple[str, ...], radii: tuple[float, ...] = RADII, norm: str = "linf", steps: int = 10, **more: Any
    ) -> AttackPart:
        settings = {"steps": steps, "step_size": 0.05 if steps == 10 else 0.02, "norm": norm}
        return AttackPart(attack="bim", settings=settings, epsilon=radii, on=on, **more)

    return {
        "BIM": bim(everywhere),
        "BIM, RMS": bim(everywhere, norm="rms"),
        "BIM, L2": bim(("net", "matched"), norm="l2", count=some),
        "BIM by the adjoint": bim(("over tolerances",), RADII[2:], source=SourcePart(gradient="adjoint"), count=few),
        "four times the steps": bim(("strict and loose",), RADII[1:], steps=40, count=some),
        "gradients of the solve at 1e-5": bim(("loose",), RADII[1:], source=SourcePart(tolerance=1e-5), count=some),
    }


def by_the_adjoint() -> TablePart:
    """The same attack by both gradients, beside what is in print."""
    own = Cell(attack="BIM", epsilon=0.3, model="over tolerances")
    adjoint = "by the adjoint at that tolerance"
    return TablePart(
        title="BIM of radius .3 by two gradients",
        heads=("tolerance",),
        rows=tuple(
            Row(
                label=f"{at:g}",
                attack="BIM by the adjoint",
                attacked_at=at,
                other=own.model_copy(update={"attacked_at": at}),
            )
            for at in TOLERANCES
        ),
        same_images=True,
        columns=(
            Column(head=adjoint, metric="success"),
            Column(head="through the steps of the solve", metric="success", of="other"),
        ),
        published={adjoint: PRINTED["BIM"][2]},
        source=SOURCE,
        note="Success, of the same images in both columns that were measured.",
    )


def nets() -> TablePart:
    """The two nets."""
    return TablePart(
        title="The nets, and what the attack does to them",
        heads=("net",),
        rows=(
            Row(label=NET, model=("net", "over tolerances"), tolerance=AT),
            Row(label=MATCHED, model="matched"),
        ),
        columns=(
            Column(head="clean accuracy", metric="accuracy", measure="clean"),
            *(
                Column(head=f"{attack}, radius 0.1", metric="success", attack=attack, epsilon=0.1)
                for attack in ("BIM", "BIM, RMS", "BIM, L2")
            ),
            Column(head="mean NFE, clean", metric="NFE", measure="clean"),
        ),
        note=f"ODE net at tolerance {AT:g}. Success counts images that the net had right. A ResNet solves nothing and has no NFE.",
    )


def beside_print() -> TablePart:
    """All that is in print about this attack on this net."""
    return TablePart(
        title="The basic iterative attack beside the published numbers",
        heads=("attack", "radius", "tolerance"),
        rows=tuple(
            Row(label=(attack, f"{radius:g}", f"{at:g}"), attack=attack, epsilon=radius, attacked_at=at)
            for attack, radius, at in product(PRINTED, RADII, TOLERANCES)
        ),
        where=Cell(model="over tolerances"),
        columns=(Column(head="success", metric="success"), Column(head="mean MSE", metric="MSE")),
        published={"success": tuple(float(one) for lines in PRINTED.values() for line in lines for one in line)},
        source=SOURCE,
        note="Theirs is another trained net and more images; the intervals are over the images here alone, and of one net.",
    )


def by_tolerance() -> FigurePart:
    """The attack by tolerance: in print, and here."""
    lines = (
        Line(
            label=f"radius {radius:g}",
            epsilon=radius,
            published=tuple((at, share / 100) for at, share in zip(TOLERANCES, printed, strict=True)),
        )
        for radius, printed in zip(RADII, PRINTED["BIM"], strict=True)
    )
    return FigurePart(
        title="BIM beside the published numbers",
        x="attacked_at",
        y="success",
        where=Cell(attack="BIM", model="over tolerances", metric="success"),
        lines=tuple(lines),
    )


def falls(attack: str, radius: float) -> ClaimPart:
    """The paper's finding for a radius at which success is high."""
    printed = PRINTED[attack][RADII.index(radius)]
    cell = Cell(metric="success", model="over tolerances", attack=attack, epsilon=radius)
    return ClaimPart(
        sentence=f"Success of {attack} of radius {radius:g} falls by more than 20 points from tolerance 0.0001 to 1 (in print from "
        f"{printed[0]} to {printed[-1]} %).",
        left=cell.model_copy(update={"attacked_at": TOLERANCES[0]}),
        relation=">",
        right=cell.model_copy(update={"attacked_at": TOLERANCES[-1]}),
        margin=0.2,
    )
