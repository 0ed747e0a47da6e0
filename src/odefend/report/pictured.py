"""Pictures of what attacks made: original, adversarial image, and their difference."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odefend.data import named_data
from odefend.errors import DataError, InvalidInput, OutputError
from odefend.experiments import Experiment
from odefend.ledger import Ledger
from odefend.metrics.rows import Rows, attacked
from odefend.named import is_own
from odefend.report.drawing import STYLE, svg


@dataclass(frozen=True)
class Example:
    """An image (height, width, channels) and what an attack made of it, each with what is said of it."""

    clean: np.ndarray
    adversarial: np.ndarray
    before: str
    after: str


def examples(
    experiment: Experiment, rows: Rows, ledger: Ledger, own: bool, count: int = 7
) -> tuple[str, list[Example]]:
    """(what they are, the first images that the first attack broke on its first model); none where the images are not here, were
    tampered with, or come out of a file of the user's own that may not be run (`own`)."""
    broken = attacked(rows.crafted).filter("success")
    if not broken.height:
        return "", []
    attacks, models = list(experiment.attacks), list(experiment.models)
    some = broken.unique(["attack", "model", "rtol", "epsilon"]).iter_rows(named=True)
    one = min(
        some,
        key=lambda row: (
            attacks.index(row["attack"]),
            models.index(row["model"]),
            row["rtol"] or 0.0,
            row["epsilon"] or 0.0,
        ),
    )
    names = ("attack", "model", "rtol", "epsilon")
    same = (pl.col(name).eq_missing(pl.lit(one[name], broken.schema[name])) for name in names)
    chosen = broken.filter(*same).unique("image", keep="first", maintain_order=True).head(count)
    part = experiment.data[one["data"]]
    if part.change or (is_own(part.set) and not own):
        return "", []
    try:
        data = named_data(part.set, part.split, dict(part.options))
        made = {key: ledger.read_images(key) for key in chosen["key"].cast(pl.String).unique()}
    except (DataError, InvalidInput, OutputError):
        return "", []
    place = {name: at for at, name in enumerate(data.ids)}
    found = []
    for row in chosen.iter_rows(named=True):
        clean = data[place[row["image"]] : place[row["image"]] + 1].images[0]
        says = _answer(rows, row)
        after = "misclassified" if says is None else f"taken for {says}"
        first, second = (one.permute(1, 2, 0).numpy() for one in (clean, made[row["key"]][row["position"]]))
        found.append(Example(first, second, str(row["label"]), after))
    radius = "" if one["epsilon"] is None else f", radius {one['epsilon']:g}"
    return f"{one['attack']}{radius}, on {one['model']}", found


def _answer(rows: Rows, row: dict[str, object]) -> int | None:
    """What the attacked model says of an adversarial image, if it was asked."""
    told = rows.judged.filter(
        pl.col("crafted") == row["key"], pl.col("image") == row["image"], pl.col("scale") == 1.0, pl.col("defense").is_null(),
        pl.col("rtol").eq_missing(pl.lit(row["rtol"], pl.Float64)), pl.col("net") == row["net"],
    )  # fmt: skip
    return told["prediction"].to_list()[0] if told.height else None


def gallery(found: Sequence[Example], title: str) -> str:
    """A column for each image: original, adversarial, difference."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.45 * len(found) + 0.6, 4.2))
        grid = np.asarray(figure.subplots(3, len(found), squeeze=False))
    for column, example in zip(grid.T, found, strict=True):
        _show(column, example)
    for axes, name in zip(grid[:, 0], ("original", "adversarial", "difference,\nscaled up"), strict=True):
        axes.set_ylabel(name, fontsize=9)
    return svg(figure, title)


def strip(example: Example, title: str) -> str:
    """One image in a row: original, adversarial, difference."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 2.0))
        panels = np.asarray(figure.subplots(1, 3))
    _show(panels, example)
    for axes, name in zip(panels, ("original", "adversarial", "difference"), strict=True):
        axes.set_xlabel(name, fontsize=8.5)
    return svg(figure, title)


def _show(panels: Sequence[Axes] | np.ndarray, example: Example) -> None:
    """Original, adversarial image and difference in three panels."""
    delta = example.adversarial - example.clean
    change = delta.mean(-1)
    shown = (
        (example.clean, example.before, 0, "gray"),
        (example.adversarial, example.after, 0, "gray"),
        (change / max(1e-9, np.abs(change).max()), f"largest {np.abs(delta).max():.2f}", -1, "RdBu_r"),
    )
    for axes, (picture, title, low, colors) in zip(panels, shown, strict=True):
        axes.imshow(picture, vmin=low, vmax=1, cmap=colors, interpolation="nearest")
        axes.set_title(title, fontsize=8.5, loc="center", fontweight="normal")
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
