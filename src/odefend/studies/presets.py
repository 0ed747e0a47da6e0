"""How much of C&W's result a shorter search reaches, by data set: what the fast presets rest on."""

from collections.abc import Mapping, Sequence

from odefend.experiments import AttackPart, Cell, Column, DataPart, Experiment, ModelPart, Row, TablePart

TOLERANCE = 1e-3
REFERENCE = {"steps": 400, "binary_search_steps": 7, "learning_rate": 0.02, "initial_constant": 0.1}
PUBLISHED = {"steps": 100, "binary_search_steps": 5, "learning_rate": 0.05, "initial_constant": 0.01}
SHORTER = tuple(
    {"steps": steps, "binary_search_steps": rounds, "learning_rate": rate, "initial_constant": constant}
    for steps, rounds, rate, constant in (
        (100, 4, 0.1, 1.0),
        (60, 4, 0.1, 1.0),
        (60, 4, 0.05, 1.0),
        (40, 4, 0.05, 1.0),
        (40, 4, 0.1, 0.1),
        (40, 4, 0.1, 1.0),
        (40, 4, 0.1, 10.0),
        (40, 4, 0.2, 1.0),
        (20, 5, 0.1, 1.0),
        (20, 5, 0.05, 1.0),
        (20, 5, 0.02, 1.0),
    )
)
SEARCHES = (REFERENCE, PUBLISHED, *SHORTER)
NETS = ("digits-oon", "mnist-oon", "cifar10-oon")


def presets(
    images: int = 16, nets: tuple[str, ...] = NETS, searches: Sequence[Mapping[str, float]] = SEARCHES
) -> Experiment:
    """The ODE-only net of each data set under every search; the small one has twice as many images."""
    data = {net: net.split("-")[0] for net in nets}
    return Experiment(
        name="presets",
        title="How short may a C&W search be?",
        data={
            net: DataPart(set=name, count=2 * images if name == "digits" else images, sample=0)
            for net, name in data.items()
        },
        models={net: ModelPart(net=net, tolerance=TOLERANCE, data=net) for net in nets},
        attacks={label(one): AttackPart(attack="carlini-wagner", settings=one, on=nets) for one in searches},
        tables=(by_search(nets, searches),),
    )


def label(search: Mapping[str, float]) -> str:
    """The name of a search."""
    return "C&W, {steps} x {binary_search_steps}, rate {learning_rate:g}, c {initial_constant:g}".format(**search)


def by_search(nets: tuple[str, ...], searches: Sequence[Mapping[str, float]]) -> TablePart:
    """Success, distance beside the reference search, and gradients, by net and search."""
    rows = [
        Row(
            label=(
                net,
                "{steps} x {binary_search_steps}".format(**one),
                f"{one['learning_rate']:g}",
                f"{one['initial_constant']:g}",
            ),
            model=net,
            attack=label(one),
            other=Cell(model=net, attack=label(searches[0])),
        )
        for net in nets
        for one in searches
    ]
    return TablePart(
        title="How short a C&W search may be",
        heads=("net", "steps x rounds", "learning rate", "first c"),
        rows=tuple(rows),
        columns=(
            Column(head="success", metric="success"),
            Column(head="L2 over the reference search", metric="L2", over="other"),
            Column(head="gradients", metric="gradients", show="plain"),
        ),
        note=f"At tolerance {TOLERANCE:g}. L2: ratio of means over images that the search and the reference (the first of each "
        "net) both broke.",
    )
