"""The zoo of trained nets: what there is, and fetching weights."""

from rich.console import Console

from odefend.cli.output import console, print_json, show
from odefend.cli.progress import clock, showing
from odefend.models import cards, fetch, image_cards, weights_of
from odefend.report import Table


def run_models(as_json: bool) -> None:
    """The trained nets."""
    known, of_images = cards(), image_cards()
    if as_json:
        both = {**known, **of_images}
        print_json([card.model_dump() | {"here": str(weights_of(name) or "")} for name, card in both.items()])
        return
    rows = tuple(
        (
            name,
            card.model,
            f"{card.parameters:,}",
            card.data,
            f"{100 * (1 - card.test_accuracy.rate):.2f} "
            f"[{100 * (1 - card.test_accuracy.high):.2f}, {100 * (1 - card.test_accuracy.low):.2f}]",
            f"{card.mean_nfe[f'{card.tolerance:g}']:.0f}" if card.tolerance else "-",
            f"{card.epochs}",
            clock(card.wall_seconds),
            "here" if weights_of(name) else "fetch",
        )
        for name, card in known.items()
    )
    columns = ("name", "net", "parameters", "data", "test error %", "NFE", "epochs", "trained", "weights")
    note = (
        "Test error in float32, with its 95 % interval, and mean evaluations of the field per image, at the tolerance of "
        "training. odefend.load(NAME) loads one; its card has the rest."
    )
    show(console(), Table("Trained nets", columns, rows, note))
    rows = tuple(
        (
            name,
            card.model,
            f"{card.parameters:,}",
            card.data,
            ", ".join(f"{measure} {found.value:.3g}" for measure, found in card.measured.items()),
            f"{card.epochs}",
            clock(card.wall_seconds),
            "here" if weights_of(name) else "fetch",
        )
        for name, card in of_images.items()
    )
    columns = ("name", "model", "parameters", "data", "test images", "epochs", "trained", "weights")
    note = "Means over test images; their intervals are on the cards. odefend.load_image_model(NAME) loads one."
    show(console(), Table("Trained models of images", columns, rows, note))


def run_fetch(names: list[str], source: str | None, quiet: bool) -> None:
    """Weights that did not come with the package."""
    for name in [*cards(), *image_cards()] if names == ["all"] else names:
        with showing(quiet) as progress:
            here = fetch(name, source, progress)
        Console().print(f"{name}: {here}", highlight=False, soft_wrap=True)
