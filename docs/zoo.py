"""Make docs/zoo.md, docs/training.svg and docs/samples.svg from the cards of the trained nets.

python docs/zoo.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from pages import fill

from odefend.models import MODELS, Card, Glow, ImageCard, Mean, Measured, cards, image_cards, load_image_model
from odefend.models.card import Epoch
from odefend.report.drawing import panelled, svg

HERE = Path(__file__).parent
PAGE = HERE / "zoo.md"
RESULTS = HERE.parent / "results" / "precision"
TOLERANCES = ("0.0001", "0.001", "0.01", "0.1", "1", "10")

PUBLISHED = {
    "mnist-res": (0.4,),
    "mnist-mix": (0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
    "mnist-oon": (0.5, 0.5, 0.6, 0.8, 1.2, 1.5),
    "cifar10-res": (7.3,),
    "cifar10-mix": (7.8, 7.8, 7.9, 7.9, 7.9, 7.8),
    "cifar10-oon": (9.1, 9.2, 9.3, 10.6, 11.3, 11.5),
}
"""Test error in per cent by tolerance: Table I of Carrara et al., WIFS 2019 (doi 10.1109/WIFS47025.2019.9035109)."""

MEASURES = ("bits per dimension", "mean square error", "binary cross-entropy")
TICKS = (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80)
ORDER = ("oon", "mix", "res", "oon-matched", "mix-matched", *MODELS)


def error(right: Measured) -> str:
    """Test error in per cent, with its interval."""
    return f"{100 * (1 - right.rate):.2f} [{100 * (1 - right.high):.2f}, {100 * (1 - right.low):.2f}]"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def of(known: dict[str, Card], data: str) -> list[Card]:
    """The nets of a data set, seeds of one net together."""
    chosen = [card for card in known.values() if card.data == data]
    return sorted(chosen, key=lambda card: (ORDER.index(card.model), card.name))


def errors(known: dict[str, Card], data: str) -> str:
    """Test error by tolerance, beside what was published."""
    rows = []
    for card in of(known, data):
        found = [error(card.accuracy_at[t]) for t in TOLERANCES] if card.accuracy_at else [error(card.test_accuracy)]
        rows.append((card.name, f"{card.seed}", f"{card.options.get('width', '-')}", *found, *[""] * (6 - len(found))))
        if card.name in PUBLISHED:
            told = [f"{value:g}" for value in PUBLISHED[card.name]]
            width = "64" if data == "mnist" else "256"
            rows.append((f"*{card.name}, published*", "23", width, *told, *[""] * (6 - len(told))))
    return table(("net", "seed", "width", *(f"τ = {t}" for t in TOLERANCES)), rows)


def costs(known: dict[str, Card], data: str) -> str:
    """What each training took and what each net takes."""
    rows = [
        (
            card.name,
            f"{card.parameters:,}",
            f"{card.epochs}",
            f"{card.images_seen:,}",
            f"{card.wall_seconds / 60:.0f} min, {card.threads} thread{'s' if card.threads > 1 else ''}",
            card.recipe["precision"],
            " / ".join(f"{card.mean_nfe[t]:.0f}" for t in TOLERANCES) if card.mean_nfe else "-",
        )
        for card in of(known, data)
    ]
    head = ("net", "parameters", "epochs", "images seen", "trained in", "precision", "NFE at τ = 1e-4 ... 10")
    return table(head, rows)


def precisions() -> str:
    """The same recipe in bf16-mixed and in float32, trained beside each other for a table of their own."""
    trained = [Card.model_validate_json(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    rows = [
        (
            card.name,
            card.recipe["precision"],
            f"{card.wall_seconds / card.epochs / 60:.1f} min",
            f"{card.epochs}",
            f"{card.threads}",
            error(card.test_accuracy),
        )
        for card in trained
    ]
    return table(("net", "precision", "time per epoch", "epochs", "threads", "test error %"), rows)


def figure(known: dict[str, Card]) -> str:
    """Validation error after each epoch, of nets that were trained on clean images."""
    known = {name: card for name, card in known.items() if not any(map(card.recipe.get, ("adversarial", "noise")))}
    sets = [data for data in ("mnist", "cifar10") if any(card.history for card in of(known, data))]
    drawing, panels = panelled(4.6 * len(sets), 3.4, len(sets))
    for data, axes in zip(sets, panels, strict=True):
        for card in of(known, data):
            points: list[Epoch] = card.history
            axes.plot(
                [epoch.images / 1000 for epoch in points],
                [100 * (1 - epoch.validation_accuracy) for epoch in points],
                marker="o",
                markersize=3,
                linestyle="--" if card.model.endswith("matched") else "-",
                color=f"C{ORDER.index(card.model) % 10}",
                alpha=0.5 if "-seed" in card.name else 1.0,
                label=None if "-seed" in card.name else card.name,
            )
        axes.set(xlabel="training images seen (thousands)", ylabel="validation error (%)", yscale="log", title=data)
        low, high = axes.get_ylim()
        axes.set_yticks([tick for tick in TICKS if low <= tick <= high])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend(fontsize=8)
    return svg(drawing, "Validation error in training").replace("<svg ", '<svg style="background: white" ', 1) + "\n"


def image_models(known: dict[str, ImageCard]) -> str:
    """What each model of images takes, and what it does on test images."""
    rows = [
        (
            card.name,
            f"{card.parameters:,}",
            f"{card.epochs}",
            f"{card.images_seen:,}",
            f"{card.wall_seconds / 60:.0f} min, {card.threads} thread{'s' if card.threads > 1 else ''}",
            *(interval(card.measured.get(measure)) for measure in MEASURES),
        )
        for card in known.values()
    ]
    return table(("model", "parameters", "epochs", "images seen", "trained in", *MEASURES), rows)


def interval(found: Mean | None) -> str:
    """As "2.34 [2.31, 2.37]"."""
    return "" if found is None else f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def samples(known: dict[str, ImageCard]) -> str:
    """Pictures drawn from each flow."""
    flows = [name for name, card in known.items() if card.model == "glow"]
    drawing, panels = panelled(4.2 * len(flows), 2.6, len(flows))
    for name, axes in zip(flows, panels, strict=True):
        model = load_image_model(name)
        assert isinstance(model, Glow)
        drawn = F.pad(model.sample(32, seed=0), (1, 1, 1, 1), value=0.6)
        rows = [torch.cat(list(row), 2) for row in drawn.split(8)]
        axes.imshow(torch.cat(rows, 1).permute(1, 2, 0).squeeze(2), cmap="gray", vmin=0, vmax=1)
        axes.set(title=f"{name}, temperature 0.7", xticks=[], yticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return svg(drawing, "Samples of the flows").replace("<svg ", '<svg style="background: white" ', 1) + "\n"


def parts(known: dict[str, Card]) -> dict[str, str]:
    """The page's tables."""
    return {
        "models of images": image_models(image_cards()),
        "mnist errors": errors(known, "mnist"),
        "mnist costs": costs(known, "mnist"),
        "cifar10 errors": errors(known, "cifar10"),
        "cifar10 costs": costs(known, "cifar10"),
        "precisions": precisions(),
    }


def main() -> None:
    """Write what is generated."""
    known = cards()
    fill(PAGE, parts(known))
    (HERE / "training.svg").write_text(figure(known), encoding="utf-8")
    (HERE / "samples.svg").write_text(samples(image_cards()), encoding="utf-8")


if __name__ == "__main__":
    main()
