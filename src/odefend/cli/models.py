"""The zoo of trained nets: what there is, and fetching weights."""

from collections.abc import Iterable

from odefend.cli.output import print_json, say, show
from odefend.cli.progress import showing
from odefend.models import Card, ImageCard, cards, fetch, image_cards, weights_of
from odefend.report import Table


def run_models(as_json: bool) -> None:
    """The trained nets."""
    known, of_images = cards(), image_cards()
    if as_json:
        both = {**known, **of_images}
        print_json([card.model_dump() | {"here": str(weights_of(name) or "")} for name, card in both.items()])
        return
    show(_nets(known), _image_models(of_images))


def _nets(known: dict[str, Card]) -> Table:
    rows = tuple(
        (
            name,
            f"{card.parameters:,}",
            card.data,
            f"{100 * (1 - card.test_accuracy.rate):.2f} "
            f"[{100 * (1 - card.test_accuracy.high):.2f}, {100 * (1 - card.test_accuracy.low):.2f}]",
            f"{card.mean_nfe[f'{card.tolerance:g}']:.0f}" if card.tolerance else "-",
        )
        for name, card in known.items()
    )
    return Table(
        "Trained nets",
        ("name", "parameters", "data", "test error %", "NFE"),
        rows,
        "Test error in float32, with its 95 % interval, and mean evaluations of the field per image, at the tolerance of "
        f"training. odefend.load(NAME) loads one; its card, and --json, have the rest.{_missing(known)}",
    )


def _image_models(known: dict[str, ImageCard]) -> Table:
    rows = tuple(
        (
            name,
            f"{card.parameters:,}",
            card.data,
            ", ".join(f"{measure} {found.value:.3g}" for measure, found in card.measured.items()),
        )
        for name, card in known.items()
    )
    return Table(
        "Trained models of images",
        ("name", "parameters", "data", "test images"),
        rows,
        "Means over test images; their intervals are on the cards. odefend.load_image_model(NAME) loads "
        f"one.{_missing(known)}",
    )


def _missing(known: Iterable[str]) -> str:
    """Which weights did not come along."""
    names = [name for name in known if weights_of(name) is None]
    return f" Not here yet: {', '.join(names)}. Get them: odefend models fetch NAME." if names else ""


def run_fetch(names: list[str], source: str | None, quiet: bool) -> None:
    """Weights that did not come with the package."""
    for name in [*cards(), *image_cards()] if names == ["all"] else names:
        with showing(quiet) as progress:
            here = fetch(name, source, progress)
        say(f"{name}: {here}")
