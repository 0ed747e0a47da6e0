"""Pictures of what an attack made, beside what the net and a vote say of them."""

import numpy as np
import polars as pl

from odefend.data import named_data
from odefend.errors import DataError
from odefend.report import figures
from odefend.report.page import Section
from odefend.report.rows import Rows


def gallery(rows: Rows, count: int = 7) -> Section | None:
    """The first images that the search broke, each with what the net and the vote say of it."""
    about = rows.evaluation
    searched = [(trial, at) for trial, at in rows.everywhere() if at == about.tolerance]
    if not searched or not rows.votes:
        return None
    trial, at = searched[0]
    made = rows.made(trial.name, at=at).filter("success").sort("image").head(count)
    judged = rows.about(trial, at)
    ballots = judged.filter(
        (pl.col("experiment") == "tolerance vote") & (pl.col("scale") == 1.0) & (pl.col("kind") == "adversarial")
    )
    once = judged.filter(
        (pl.col("experiment") == "recovery")
        & (pl.col("net") == about.net)
        & (pl.col("rtol") == at)
        & (pl.col("scale") == 1.0)
        & (pl.col("defense") == "tolerance")
    )
    try:
        data = named_data(about.data, "test")
    except DataError:
        return Section("Gallery", (f"The images of {about.data} are not on this machine.",))
    place, originals = {name: i for i, name in enumerate(data.ids)}, data.images
    pictures = []
    for row in made.iter_rows(named=True):
        clean = originals[place[row["image"]]].permute(1, 2, 0).numpy()
        adversarial = rows.ledger.read_images(row["key"])[row["position"]].permute(1, 2, 0).numpy()
        votes = np.bincount(ballots.filter(pl.col("image") == row["image"])["prediction"].to_numpy(), minlength=10)
        says = once.filter(pl.col("image") == row["image"])["prediction"].item()
        pictures.append((clean, adversarial, str(row["label"]), f"taken for {says}", votes))
    if not pictures:
        return Section("Gallery", ("No image was broken.",))
    return Section(
        "Gallery",
        (),
        (
            (
                figures.gallery(pictures),
                f"The first images that {trial.name} broke: the original with its label, the adversarial image with what the "
                "net says of it, their difference (red brighter, blue darker; the largest change of a pixel is given), and "
                f"how {int(pictures[0][4].sum())} solves at random tolerances vote (green: the true class).",
            ),
        ),
    )
