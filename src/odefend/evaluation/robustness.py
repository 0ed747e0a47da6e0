"""What rows say of a net under attack: rates with intervals, paired differences, the worst case per image."""

from collections.abc import Sequence

import polars as pl

from odefend import intervals
from odefend.intervals import Interval


def attacked(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of images that the net had right, and that were therefore attacked."""
    return rows.filter(~pl.col("initially_wrong"))


def accuracy(judged: pl.DataFrame) -> Interval:
    """Share of rows judged rightly."""
    return intervals.rate(int(judged["correct"].sum()), judged.height)


def by_image(judged: pl.DataFrame) -> pl.DataFrame:
    """Each image's share of right judgements over its draws."""
    return judged.group_by("image").agg(pl.col("correct").cast(pl.Float64).mean()).sort("image")


def recovered(judged: pl.DataFrame) -> Interval:
    """Share of successful adversarial images judged rightly; draws are averaged per image first."""
    rows = by_image(judged.filter(pl.col("attack_success")))
    if judged["draw"].n_unique() <= 1:
        return intervals.rate(int(rows["correct"].sum()), rows.height)
    return intervals.mean(rows["correct"].to_numpy())


def difference(one: pl.DataFrame, other: pl.DataFrame) -> Interval:
    """Mean difference per image between two judgements of the same adversarial images, paired, with its interval."""
    pairs = by_image(one.filter(pl.col("attack_success"))).join(
        by_image(other.filter(pl.col("attack_success"))), on="image", suffix="_other"
    )
    return intervals.mean_difference(pairs["correct"].to_numpy(), pairs["correct_other"].to_numpy())


def matrix_rows(crafted: pl.DataFrame, judged: pl.DataFrame) -> pl.DataFrame:
    """The judged rows of the matrix with the tolerance each image was attacked at."""
    made = crafted.filter(pl.col("experiment") == "tolerance matrix").select(
        pl.col("key").alias("crafted"), "image", "epsilon", attacked_at="rtol"
    )
    shown = judged.filter((pl.col("experiment") == "tolerance matrix") & ~pl.col("initially_wrong"))
    return shown.drop("attacked_at", "epsilon", strict=False).join(made.unique(), on=["crafted", "image"])


def matrix_cells(
    crafted: pl.DataFrame, judged: pl.DataFrame, grid: Sequence[float]
) -> dict[tuple[float, float], Interval]:
    """Accuracy by (attacked at, judged at)."""
    rows = matrix_rows(crafted, judged)
    return {
        (attack, test): accuracy(rows.filter((pl.col("attacked_at") == attack) & (pl.col("rtol") == test)))
        for attack in grid
        for test in grid
    }


def worst_case(crafted: pl.DataFrame, judged: pl.DataFrame, net: str, test: float | None, epsilon: float) -> Interval:
    """Share of the images that the net has right at the tested tolerance (None: it has none) and that no attack of radius
    `epsilon` breaks there: none made at another tolerance, and none of those made at this one, by whatever gradients. Where it
    gives no answer, the image is lost as well."""
    made = crafted.filter((pl.col("net") == net) & (pl.col("epsilon") == epsilon))
    here = made.filter(pl.col("rtol").eq_missing(test))
    right = here.filter(~pl.col("initially_wrong")).select("image").unique()
    crossed = (
        matrix_rows(made, judged).filter(pl.col("rtol").eq_missing(test)).select("image", broken=~pl.col("correct"))
    )
    own = here.select("image", broken=lost())
    each = pl.concat([crossed, own]).join(right, on="image").group_by("image").agg(pl.col("broken").any())
    return intervals.rate(int((~each["broken"]).sum()), each.height)


def lost() -> pl.Expr:
    """Of crafted rows: the attacked image is not answered rightly any more, whether the net is fooled or, in a ball, its solver
    fails. Abstention is lost accuracy, though no success of the attack."""
    return pl.col("success") | ((pl.col("status") != 0) & pl.col("epsilon").is_not_null())


def fooled() -> pl.Expr:
    """Answered, and wrongly: a failed solve is neither right nor fooled."""
    return ~pl.col("correct") & (pl.col("status") == 0)
