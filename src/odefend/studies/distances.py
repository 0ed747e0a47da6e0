"""How far images of MNIST are from the boundary: what C&W with the papers' settings says, and what a stronger search says."""

from collections.abc import Sequence

from odefend.experiments import (
    AttackPart,
    Cell,
    ClaimPart,
    Column,
    DataPart,
    Experiment,
    MeasurePart,
    ModelPart,
    Row,
    TablePart,
)

AT, OTHERS = 1e-3, (1e-5, 1.0)
ODES = ("mnist-oon", "mnist-mix")
MATCHED = {"mnist-oon": "mnist-oon-matched", "mnist-mix": "mnist-mix-matched"}
SEARCHES = {"C&W": "carrara-mnist", "MinimumNorm": "minimum-norm"}


def distances(images: int = 60) -> Experiment:
    """So many test images, drawn at random."""
    nets = [*ODES, *MATCHED.values(), "mnist-res"]
    return Experiment(
        name="distances",
        title="How far are images from the boundary?",
        shard=15,
        data={"test": DataPart(set="mnist", count=images, sample=0)},
        models={
            **{net: ModelPart(net=net, tolerance=AT if net in ODES else None) for net in nets},
            **{_otherwise(net): ModelPart(net=net, tolerance=OTHERS) for net in ODES},
        },
        attacks={search: AttackPart(attack=attack, on=tuple(nets)) for search, attack in SEARCHES.items()},
        measures={
            "clean": MeasurePart(measure="predict", models=tuple(nets)),
            **{
                f"recovered by {net}": MeasurePart(
                    measure="predict", models=_otherwise(net), images=tuple(SEARCHES), made_on=net, scales=(1.0, 1.1)
                )
                for net in ODES
            },
        },
        tables=(searched(nets), recovered()),
        claims=tuple(claim for net in ODES for claim in farther(net)),
    )


def _otherwise(net: str) -> str:
    return f"{net}, solved otherwise"


def searched(nets: Sequence[str]) -> TablePart:
    """What each search finds."""
    return TablePart(
        title="What C&W says of distances, and what MinimumNorm says",
        heads=("net",),
        rows=tuple(Row(label=net, model=net) for net in nets),
        columns=(
            *(Column(head=f"{search}, mean L2", metric="L2", attack=search) for search in SEARCHES),
            Column(head="C&W over MinimumNorm", metric="L2", attack="C&W", over=Cell(attack="MinimumNorm"), show="2"),
            *(Column(head=f"{search}, gradients", metric="gradients", attack=search) for search in SEARCHES),
            Column(head="C&W, success", metric="success", attack="C&W"),
            Column(head="MinimumNorm, success", metric="success", attack="MinimumNorm"),
        ),
        note=f"Images drawn at random; ODE nets at tolerance {AT:g}. C&W as published (ICPR Workshops 2020). Means over images "
        "that a search broke, the ratio over those that both broke.",
    )


def recovered() -> TablePart:
    """What other tolerances recover of what each search found."""
    return TablePart(
        title="What another tolerance recovers of each search's images",
        heads=("net", "search"),
        rows=tuple(
            Row(label=(net, search), model=_otherwise(net), attack=search) for net in ODES for search in SEARCHES
        ),
        columns=tuple(
            Column(head=f"at {at:g}, s = {scale:g}", metric="recovered", tolerance=at, scale=scale)
            for at in OTHERS
            for scale in (1.0, 1.1)
        ),
        note=f"Of the images that fooled the net at tolerance {AT:g}. s: the perturbation is multiplied by it.",
    )


def farther(net: str) -> tuple[ClaimPart, ...]:
    """That breaking an ODE net takes a larger perturbation than breaking its matched ResNet, by each search."""
    return tuple(
        ClaimPart(
            sentence=f"By {search}, breaking {net} takes a larger L2 perturbation than breaking {MATCHED[net]}, on the images that "
            "both lose.",
            left=Cell(metric="L2", model=net, attack=search),
            relation=">",
            right=Cell(metric="L2", model=MATCHED[net], attack=search),
        )
        for search in SEARCHES
    )
