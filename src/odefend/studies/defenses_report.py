"""The tables of the study of the defenses: pure functions of its rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from odefend.evaluation import Defended, Ledger
from odefend.evaluation.robustness import fooled
from odefend.intervals import Interval, mean, mean_difference, median
from odefend.report import Table
from odefend.report.tuning import words
from odefend.report.withstood import Withstood
from odefend.studies.defenses import LOUDNESS, Setup, Subject

ADAPTIVE = ("adaptive", "adaptive, margin", "adaptive, leaps", "adaptive, bare", "more draws")
IN_BALL = ("plain", "transferred", "white-box", *ADAPTIVE)
BARE = "none"


@dataclass(frozen=True)
class Rows:
    """The ledger's tables, read once."""

    crafted: pl.DataFrame
    judged: pl.DataFrame

    @classmethod
    def of(cls, ledger: Ledger, name: str | None = None) -> "Rows":
        """The tables of a study by its name, or of all in the ledger. What tuning crafted and judged is left out."""
        trials = pl.col("evaluation").str.starts_with("defenses-") if name is None else pl.col("evaluation") == name
        names = ledger.labels().filter(trials)["evaluation"].unique().to_list()
        crafted, judged = (pl.concat([ledger.read(table, one) for one in names]) for table in ("crafted", "judged"))
        return cls(crafted, judged)

    def those(self, tried: Sequence[Subject]) -> list[Subject]:
        """The defenses that were tried, each without its partner where that was not: of a study that was stopped."""

        def done(defense: Defended | None) -> bool:
            return defense is not None and self.right(defense.text).height > 0

        return [one if done(one.partner) else replace(one, partner=None) for one in tried if done(one.defense)]

    def of_defense(self, settings: str | None) -> pl.DataFrame:
        """What one was shown."""
        return self.judged.filter(pl.col("settings").eq_missing(pl.lit(settings)))

    def right(self, settings: str | None) -> pl.DataFrame:
        """Each image's share of draws in which it is right when clean."""
        return _share(self.of_defense(settings).filter(pl.col("experiment") == "clean"), pl.col("correct"))

    def fooled(self, settings: str | None, experiment: str) -> pl.DataFrame:
        """Of the images that are right when clean (in most draws) and were attacked, the largest share of draws in which one of
        these attacks fools the net behind the defense. Not attacked is what the attacker's own draws have wrong already."""
        counted = self.right(settings).filter(pl.col("share") > 0.5).select("image")
        shown = self.of_defense(settings).filter((pl.col("experiment") == experiment) & (pl.col("scale") == 1.0))
        shown = shown.filter(~pl.col("initially_wrong"))
        each = _share(shown, fooled(), "crafted").group_by("image").agg(pl.col("share").max())
        return each.join(counted, on="image", how="semi").sort("image")

    def worst(self, settings: str | None, attacks: Sequence[str] = IN_BALL) -> pl.DataFrame:
        """The same for the worst attack in the ball, image by image."""
        each = [rows for name in attacks if (rows := self.fooled(settings, name)).height]
        if not each:
            return self.fooled(settings, "none")
        return pl.concat(each).group_by("image").agg(pl.col("share").max()).sort("image")

    def followed(self, settings: str | None) -> pl.DataFrame:
        """`worst`, on the images on which most was tried: of a defense that draws, those of more draws."""
        worst, rows = self.worst(settings), self.of_defense(settings)
        more = rows.filter(pl.col("experiment") == "more draws").select("image")
        return worst.join(more, on="image", how="semi") if more.height else worst

    def evading(self, settings: str | None) -> pl.DataFrame:
        """For each image that was searched for: the smallest L2 distance at which something that a search found, pushed on or not,
        fools the net in most draws (before what is pushed beyond [0, 1] is cut off, so it may be less); inf where none does."""
        counted = self.right(settings).filter(pl.col("share") > 0.5).select("image")
        names = ("plain, nearest", "adaptive, nearest")
        shown = self.of_defense(settings).filter(pl.col("experiment").is_in(names))
        lengths = self.crafted.select(pl.col("key").alias("crafted"), "image", "l2", "success").unique()
        each = _share(shown, fooled(), "crafted", "scale").join(lengths, on=["crafted", "image"])
        fools = (pl.col("share") > 0.5) & (pl.col("l2") > 0)
        found = each.with_columns(far=pl.when(fools).then(pl.col("l2") * pl.col("scale")).otherwise(float("inf")))
        return found.group_by("image").agg(pl.col("far").min()).join(counted, on="image", how="semi").sort("image")


def _share(judged: pl.DataFrame, what: pl.Expr, *by: str) -> pl.DataFrame:
    return judged.group_by("image", *by).agg(share=what.cast(pl.Float64).mean()).sort("image", *by)


def summary(rows: Rows, setup: Setup, tried: Sequence[Subject]) -> list[Table]:
    """All tables, of the defenses that have been tried."""
    tried = rows.those(tried)
    return [success(rows, setup, tried), distance(rows, setup, tried), more_draws(rows, setup, tried)]


def success(rows: Rows, setup: Setup, tried: Sequence[Subject]) -> Table:
    """Accuracy, and success in the ball."""
    cells = [_in_ball(rows, BARE, None, None)]
    cells += [_in_ball(rows, one.label, one.defense.text, one.partner and one.partner.text) for one in tried]
    how = f"PGD of {setup.steps} steps in an L-inf ball of {setup.epsilon:g}"
    return Table(
        f"What defenses of {setup.net} withstand in a ball",
        (
            "defense",
            "settings",
            "clean accuracy",
            *("plain", "transferred", "white-box", "adaptive"),
            "worst case",
            "equal noise",
            "its clean accuracy",
            "its worst case",
            "difference",
        ),
        tuple(cells),
        f"Success of {how}, on those of {setup.images} test images that are right without it; of random defenses the mean over "
        f"{setup.draws} draws that no attack has seen. Plain: made on the bare net; transferred: on {setup.twin}; white-box: by "
        f"the gradient of one other draw, or the only one there is; adaptive, the worst per image: of the mean of "
        f"{setup.searched} other draws{', by cross-entropy and by the margin' if setup.margin else ''}, of the bare net, and "
        f"on the margin in 25 steps as long as the radius, {setup.leaps} times; where there are draws, that on the first "
        f"{setup.followed} images, and on these also of {setup.many} draws. Equal noise: of about the same dose on clean margins "
        f"(within 30 % of its standard deviation, between {LOUDNESS[0]:g} and {LOUDNESS[-1]:g}), and as many passes. Difference: "
        "its worst case minus the defense's, paired, on the images on which most was tried against both.",
    )


def _in_ball(rows: Rows, label: str, settings: str | None, partner: str | None) -> tuple[str, ...]:
    worst = rows.worst(settings)
    other = rows.worst(partner) if partner else None
    gap = "" if other is None else _signed(_paired(rows.followed(partner), rows.followed(settings)))
    return (
        label,
        _told(settings),
        mean(rows.right(settings)["share"].to_numpy()).percent,
        *(_rate(rows.fooled(settings, name)) for name in IN_BALL[:3]),
        _rate(rows.worst(settings, ADAPTIVE)),
        _rate(worst),
        *(
            ("", "", "")
            if other is None
            else (_told(partner), mean(rows.right(partner)["share"].to_numpy()).percent, _rate(other))
        ),
        gap,
    )


def withstood(rows: Rows, tried: Sequence[Subject]) -> list[Withstood]:
    """The same as a figure shows it: the bare net first."""
    tried = rows.those(tried)
    found = [(BARE, None, None), *((one.label, one.defense.text, one.partner) for one in tried)]
    return [
        Withstood(
            label,
            mean(rows.worst(settings, ("plain", "transferred"))["share"].to_numpy()),
            mean(rows.worst(settings)["share"].to_numpy()),
            mean(rows.worst(partner.text)["share"].to_numpy()) if partner else None,
        )
        for label, settings, partner in found
    ]


def distance(rows: Rows, setup: Setup, tried: Sequence[Subject]) -> Table:
    """What plain C&W comes to, and how much farther one who knows has to go."""
    cells = [_far(rows, BARE, None, None, setup)]
    cells += [_far(rows, one.label, one.defense.text, one.partner and one.partner.text, setup) for one in tried]
    scales = setup.scales[:3]
    return Table(
        f"What evading defenses of {setup.net} costs",
        (
            "defense",
            *(f"plain C&W succeeds, s = {scale:g}" for scale in scales),
            "adaptive C&W succeeds, s = 1",
            "median L2 to evade",
            "times the bare net's",
            "times, equal noise",
        ),
        tuple(cells),
        f"The first {setup.nearest} test images; success of all that were searched, found or not. s: how far the perturbation was "
        f"pushed on. To evade: the least L2, over plain and adaptive searches pushed on up to s = {setup.scales[-1]:g}, that fools "
        "most of the draws, measured before what leaves [0, 1] is cut off; ratio: median over images, with the interval of a "
        "bootstrap.",
    )


def more_draws(rows: Rows, setup: Setup, tried: Sequence[Subject]) -> Table:
    """Whether attackers who follow a few draws of a random defense are weak for it."""
    cells = []
    for one in tried:
        few, many = (rows.fooled(one.defense.text, name) for name in ("adaptive", "more draws"))
        if many.height:
            few = few.join(many.select("image"), on="image", how="semi")
            cells.append((one.label, _rate(few), _rate(many), _signed(_paired(many, few))))
    return Table(
        f"Whether more draws of {setup.net}'s random defenses help",
        ("defense", f"{setup.searched} draws", f"{setup.many} draws", "difference"),
        tuple(cells),
        f"Success of PGD along the mean of so many draws, on those of the first {setup.followed} test images that are right "
        "without it, judged as above; difference: paired. Where it is above 0, more draws yet may bring more.",
    )


def _far(rows: Rows, label: str, settings: str | None, partner: str | None, setup: Setup) -> tuple[str, ...]:
    bare, mine = rows.evading(None), rows.evading(settings)
    counted = rows.right(settings).filter(pl.col("share") > 0.5).select("image")
    shown = rows.of_defense(settings).filter(~pl.col("initially_wrong"))

    def at(experiment: str, scale: float) -> str:
        some = shown.filter((pl.col("experiment") == experiment) & (pl.col("scale") == scale))
        each = _share(some, fooled()).join(counted, on="image", how="semi")
        return _rate(each) if each.height else ""

    return (
        label,
        *(at("plain, nearest", scale) for scale in setup.scales[:3]),
        at("adaptive, nearest", 1.0),
        f"{np.median(mine['far'].to_numpy()):.3g}" if mine.height else "",
        _ratio(mine, bare) if settings else "",
        _ratio(rows.evading(partner), bare) if partner else "",
    )


def _ratio(mine: pl.DataFrame, bare: pl.DataFrame) -> str:
    """The median ratio of distances, with its percentile bootstrap interval over the images."""
    both = mine.join(bare.filter(pl.col("far").is_finite()), on="image", suffix="_bare").sort("image")
    if not both.height:
        return ""
    return median(both["far"].to_numpy() / both["far_bare"].to_numpy()).text(2)


def _paired(one: pl.DataFrame, other: pl.DataFrame) -> Interval:
    both = one.join(other, on="image", suffix="_other").sort("image")
    return mean_difference(both["share"].to_numpy(), both["share_other"].to_numpy())


def _signed(gap: Interval) -> str:
    return f"{100 * gap.value:+.0f} [{100 * gap.low:+.0f}, {100 * gap.high:+.0f}] %"


def _rate(rows: pl.DataFrame) -> str:
    return mean(rows["share"].to_numpy()).percent if rows.height else ""


def _told(settings: str | None) -> str:
    return words(json.loads(settings)) if settings else ""
