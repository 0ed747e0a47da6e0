"""The C&W attack on an ODE net by the solver's tolerance, and what another tolerance recovers; beside the matched ResNet, noise of
equal dose, and an attacker who pushes on.

Carrara et al., "Defending Neural ODE Image Classifiers from Adversarial Attacks with Tolerance Randomization", ICPR Workshops 2020.
"""

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
)
from odefend.studies.equal_dose import recovery

NET, MATCHED, AT = "mnist-oon", "mnist-oon-matched", 1e-3
TOLERANCES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
SCALES = (1.0, 1.02, 1.05, 1.1, 1.25, 1.5)
SIGMAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
PRINTED = {1e-4: (99.7, 0.014), 1e-3: (90.7, 0.017), 1e-2: (74.4, 0.019), 1e-1: (71.6, 0.017), 1.0: (69.7, 0.019)}
"""Success in percent and mean distance, which is a mean square, by tolerance: table 1 (ODE)."""
SEARCHES = ("C&W", "C&W on the ResNet", "C&W over tolerances")


def icprw2020(images: int = 300) -> Experiment:
    """So many of the first test images, which are no random sample; a third of them at the other tolerances."""
    return Experiment(
        name="icprw2020",
        title="MNIST OON and its matched ResNet under C&W, and what another tolerance recovers",
        data={
            "test": DataPart(set="mnist", count=images),
            "clean": DataPart(set="mnist", count=round(images * 10 / 3)),
            "calibration": DataPart(set="mnist", split="validation", count=min(images, 200)),
        },
        models={
            "net": ModelPart(net=NET, tolerance=AT),
            "matched": ModelPart(net=MATCHED),
            "other tolerances": ModelPart(net=NET, tolerance=tuple(at for at in PRINTED if at != AT)),
            "over tolerances": ModelPart(net=NET, tolerance=TOLERANCES),
            "noise": ModelPart(net=NET, tolerance=AT, defense={"name": "input-noise", "sigma": SIGMAS}),
            "noise of equal dose": ModelPart(net=NET, tolerance=AT, defense={"name": "input-noise", "sigma": "$doses"}),
        },
        attacks={
            "C&W": AttackPart(attack="carrara-mnist", on="net"),
            "C&W on the ResNet": AttackPart(attack="carrara-mnist", on="matched"),
            "C&W over tolerances": AttackPart(attack="carrara-mnist", on="other tolerances", count=max(1, images // 3)),
        },
        measures={
            "clean": MeasurePart(measure="predict", models=("net", "matched", "over tolerances"), data="clean"),
            "doses": MeasurePart(measure="predict", models=("over tolerances", "noise"), data="calibration", draws=2),
            "recovered": MeasurePart(measure="predict", models="over tolerances", images="C&W", scales=SCALES),
            "under noise": MeasurePart(measure="predict", models="noise of equal dose", images="C&W", draws=5),
        },
        derived={"doses": DerivedPart(value="matched-noise", of="doses", settings={"reference": AT})},
        tables=(
            nets(),
            beside_print(),
            recovery(NET, "C&W", AT, TOLERANCES, "over tolerances", ("noise", "noise of equal dose")),
        ),
        claims=claims(),
    )


def nets() -> TablePart:
    """The two nets."""
    return TablePart(
        title="The nets, and what C&W does to them",
        heads=("net",),
        rows=(Row(label=NET, model="net"), Row(label=MATCHED, model="matched")),
        columns=(
            Column(head="clean accuracy", metric="accuracy", measure="clean"),
            Column(head="success", metric="success"),
            Column(head="mean L2", metric="L2"),
            Column(head="mean MSE", metric="MSE"),
            Column(head="gradients", metric="gradients"),
        ),
        note=f"ODE net at tolerance {AT:g}. Success counts images that the net had right; distances are means over successes. This "
        "search stops short of the nearest images, and by more on the ODE net than on the ResNet: distances here compare searches.",
    )


def beside_print() -> TablePart:
    """Table 1 of the paper, its ODE rows."""
    return TablePart(
        title="C&W beside the published numbers",
        heads=("tolerance",),
        rows=tuple(Row(label=f"{at:g}", attack=SEARCHES[::2], attacked_at=at) for at in PRINTED),
        columns=(Column(head="success", metric="success"), Column(head="mean MSE", metric="MSE")),
        published={
            "success": tuple(success for success, _ in PRINTED.values()),
            "mean MSE": tuple(distance for _, distance in PRINTED.values()),
        },
        source="Carrara et al., ICPR Workshops 2020, table 1 (ODE); success in percent",
        note="Theirs is another trained net and more images; the intervals are over the images here alone, and of one net.",
    )


def claims() -> tuple[ClaimPart, ...]:
    """What would have to hold if another tolerance were a defense."""

    def recovered(at: float, scale: float = 1.0) -> Cell:
        return Cell(
            metric="recovered", model="over tolerances", measure="recovered", attack="C&W", tolerance=at, scale=scale
        )

    def more_than(share: float, cell: Cell, sentence: str) -> ClaimPart:
        return ClaimPart(sentence=sentence, left=cell, relation=">", right=share)

    return (
        more_than(0.5, recovered(10.0), "Solved at tolerance 10, more than half of the C&W images are right again."),
        more_than(
            0.1,
            recovered(10.0, 1.1),
            "Solved at tolerance 10, more than a tenth are right again after the attacker went on by 10 %.",
        ),
        more_than(
            0.0,
            recovered(1e-5),
            "Solved a hundred times tighter than attacked, some of the C&W images are right again: they met the numerical error "
            "of the attacked solve.",
        ),
    )
