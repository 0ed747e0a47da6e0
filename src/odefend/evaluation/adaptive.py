"""The attacks of one who knows a defense, the same for every defense, and what is right against them under draws that neither the
attacks nor the choice among them have seen."""

from dataclasses import dataclass, replace

import polars as pl

from odefend.attacks import PGD
from odefend.evaluation.craft import Craft
from odefend.evaluation.views import Defended, Slice, View

BARE = "adaptive, bare"
ADAPTIVE = ("white-box", "adaptive", "more draws", "adaptive, margin", "adaptive, leaps", BARE)
"""The attacks by name, in the order of tables."""


@dataclass(frozen=True)
class Adaptive:
    """PGD of `steps` steps in an L-inf ball of radius `epsilon`, run several times, each from a random start of its own: on
    cross-entropy and on the margin, by steps of half the radius or as long as it, and along the gradient of the bare net, in case
    the defense's own is of no use. Every defense, and the bare net, meets as many runs of as many steps.

    Of a random defense the gradient is that of one draw, or of the mean of `few` or `many` draws (arXiv 1802.00420); no judge
    makes any of them.
    """

    epsilon: float
    steps: int = 25
    few: int = 6
    many: int = 24

    def against(self, bare: View, defense: Defended | None, images: Slice) -> list[Craft]:
        """The attacks on a net behind a defense, or on the bare net (None)."""
        runs = zip(
            ADAPTIVE,
            ("cross-entropy", "cross-entropy", "cross-entropy", "margin", "margin", "margin"),
            (0.5, 0.5, 0.5, 0.5, 1.0, 0.5),
            (1, self.few, self.many, self.few, self.few, self.few),
            strict=True,
        )
        random = replace(bare, defense=defense).random
        return [
            Craft(
                name,
                # Where it will meet other draws, an image just beyond the boundary is not enough.
                PGD(self.epsilon, steps=self.steps, step_size=part * self.epsilon, loss=loss, early_stop=not random),
                replace(bare, defense=defense, draws=draws if random else 0),
                images,
                bare if defense and name == BARE else None,
                seed,
            )
            for seed, (name, loss, part, draws) in enumerate(runs)
        ]


def under_fresh_draws(judged: pl.DataFrame) -> pl.DataFrame:
    """For each `image`, the share (`right`) of the draws that judge it under which it is right, before the attack (`crafted`) that
    is best against it.

    For each draw that judges, that attack is chosen by the others, so that nothing is won by luck with the draw itself: the one
    after which the fewest of them are right, of equals the one that leaves the least margin. Where there is but one draw the
    answer is not random, and the best attack is known. A failed solve is not right.
    """
    shown = judged.select(
        "image", "crafted", "draw", pl.col("correct").cast(pl.Float64), margin=pl.col("true_margin").fill_nan(0.0)
    )
    drawn = shown["draw"].n_unique() > 1
    attack = ("image", "crafted")
    others = shown.with_columns(
        (pl.col(name).sum().over(attack) - pl.col(name) * drawn).alias(f"{name}, others")
        for name in ("correct", "margin")
    )
    best = (
        others.sort("correct, others", "margin, others", "crafted")
        .group_by("image", "draw", maintain_order=True)
        .first()
    )
    return best.group_by("image").agg(right=pl.col("correct").mean()).sort("image")
