"""The tables of the study of the defenses: pure functions of its rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from odefend.evaluation import Defended, Ledger
from odefend.evaluation.adaptive import ADAPTIVE, under_fresh_draws
from odefend.intervals import Interval, mean, mean_difference
from odefend.report import Table
from odefend.report.images import those
from odefend.report.withstood import Withstood
from odefend.report.words import words
from odefend.studies.defenses import LOUDNESS, Setup, Subject

IN_BALL = ("plain", "transferred", *ADAPTIVE)
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

    def drawn(self, settings: str | None) -> bool:
        """Whether several draws of one judged it."""
        return self.of_defense(settings)["draw"].n_unique() > 1

    def of_defense(self, settings: str | None) -> pl.DataFrame:
        """What one was shown."""
        return self.judged.filter(pl.col("settings").eq_missing(pl.lit(settings)))

    def right(self, settings: str | None) -> pl.DataFrame:
        """Each image's share of draws under which it is right when clean."""
        clean = self.of_defense(settings).filter(pl.col("experiment") == "clean")
        return under_fresh_draws(clean.with_columns(crafted=pl.lit("clean")))

    def under(self, settings: str | None, *attacks: str, scale: float = 1.0) -> pl.DataFrame:
        """The same of the images that met these attacks, the worst of them image by image: see `under_fresh_draws`."""
        shown = self.of_defense(settings).filter(pl.col("experiment").is_in(attacks) & (pl.col("scale") == scale))
        return under_fresh_draws(shown)

    def met(self, defenses: Sequence[str | None]) -> pl.DataFrame:
        """The images that met every attack in the ball that any of these defenses met at all: what they can be compared on."""
        in_ball = self.judged.filter(
            pl.col("experiment").is_in(IN_BALL) & pl.col("settings").is_in(defenses, nulls_equal=True)
        )
        attacks = in_ball.select("settings", "experiment").unique().height
        each = in_ball.group_by("image").agg(pl.struct("settings", "experiment").n_unique().alias("met"))
        return each.filter(pl.col("met") == attacks).select("image").sort("image")


def summary(rows: Rows, setup: Setup, tried: Sequence[Subject]) -> list[Table]:
    """All tables, of the defenses that have been tried."""
    tried = rows.those(tried)
    return [in_ball(rows, setup, tried), by_cw(rows, setup, tried), more_draws(rows, setup, tried)]


def _settings(tried: Sequence[Subject]) -> list[str | None]:
    """All that is in a table: the bare net, the defenses, the noise beside them."""
    return [None, *(one.text for subject in tried for one, _ in subject.pairs)]


def in_ball(rows: Rows, setup: Setup, tried: Sequence[Subject]) -> Table:
    """Accuracy, clean and under the attacks in the ball: all rows on the images that met all of them."""
    met = rows.met(_settings(tried))
    cells = [_in_ball(rows, met, BARE, None, None)]
    cells += [_in_ball(rows, met, one.label, one.defense.text, one.partner and one.partner.text) for one in tried]
    return Table(
        f"Accuracy of defenses of {setup.net} in a ball",
        (
            *("defense", "settings", "clean", "plain", "transferred", "adaptive", "all attacks", "minus the bare net"),
            *("equal noise", "its clean accuracy", "it under all attacks", "minus equal noise"),
        ),
        tuple(cells),
        f"Right, of {those(met['image'].to_list())}, each of which met every attack in an L-inf ball of {_epsilon(rows):g}; of "
        f"random defenses the mean over {rows.judged['draw'].n_unique()} draws that no attack has seen, where the attack on each "
        "image is chosen under the other draws than the one that judges it. Plain: made on the bare net; transferred: on "
        f"{setup.twin}; adaptive: the worst, image by image, of the attacks of one who knows the defense but not its draws: "
        f"{_attacks(rows)}. Equal noise: of about the same dose on clean margins, the nearest of "
        f"{', '.join(f'{one:g}' for one in LOUDNESS)}, and as many passes. Differences are of accuracy under all attacks, in "
        "points, paired.",
    )


def _in_ball(rows: Rows, met: pl.DataFrame, label: str, settings: str | None, partner: str | None) -> tuple[str, ...]:
    worst, clean = _of(rows.under(settings, *IN_BALL), met), _of(rows.right(settings), met)
    beside = ("", "", "", "")
    if partner:
        other = _of(rows.under(partner, *IN_BALL), met)
        beside = (_told(partner), _rate(_of(rows.right(partner), met)), _rate(other), _gap(worst, other))
    return (
        label,
        _told(settings),
        _rate(clean),
        *(_rate(_of(rows.under(settings, name), met)) for name in IN_BALL[:2]),
        _rate(_of(rows.under(settings, *ADAPTIVE), met)),
        _rate(worst),
        _gap(worst, _of(rows.under(None, *IN_BALL), met)) if settings else "",
        *beside,
    )


def _epsilon(rows: Rows) -> float:
    (radius,) = rows.crafted["epsilon"].drop_nulls().unique()
    return radius


def _attacks(rows: Rows) -> str:
    """The adaptive attacks as they were run: each with the draws that it follows of a random defense."""
    told = []
    for name in ADAPTIVE:
        made = rows.crafted.filter(pl.col("experiment") == name).sort("source_draws", nulls_last=True)
        if made.height:
            row, how = made.row(0, named=True), json.loads(made["settings"][0])
            size = how["step_size"] / how["epsilon"] if how["step_size"] else 2.5 / how["steps"]
            starts = f"{how['restarts']} x " if how["restarts"] > 1 else ""
            count = row["source_draws"]
            along = f" along {count} draw{'s' if count > 1 else ''}" if count else " along the bare net's gradient"
            told.append(f"{starts}{how['steps']} steps of {size:.3g} radii on {how['loss']}{along}")
    return "; ".join(told)


def withstood(rows: Rows, tried: Sequence[Subject]) -> list[Withstood]:
    """The same as a figure shows it: the bare net first."""
    tried = rows.those(tried)
    met = rows.met(_settings(tried))

    def left(settings: str | None, *attacks: str) -> Interval:
        return mean(_of(rows.under(settings, *attacks), met)["right"].to_numpy())

    return [
        Withstood(
            label,
            left(settings, "plain", "transferred"),
            left(settings, *IN_BALL),
            left(partner.text, *IN_BALL) if partner else None,
        )
        for label, settings, partner in [
            (BARE, None, None),
            *((one.label, one.defense.text, one.partner) for one in tried),
        ]
    ]


def by_cw(rows: Rows, setup: Setup, tried: Sequence[Subject]) -> Table:
    """Accuracy under C&W that knows nothing of a defense, pushed on, and under C&W that knows it."""
    labels = [(BARE, None), *((one.label, one.defense.text) for one in tried)]
    cells = []
    for label, settings in labels:
        plain = [rows.under(settings, "plain, nearest", scale=scale) for scale in setup.scales]
        cells.append((label, *map(_rate, (*plain, rows.under(settings, "adaptive, nearest")))))
    images = rows.crafted.filter(pl.col("experiment") == "plain, nearest")["image"].unique().to_list()
    return Table(
        f"Accuracy of defenses of {setup.net} under C&W",
        ("defense", *(f"plain, s = {scale:g}" for scale in setup.scales), "adaptive, s = 1"),
        tuple(cells),
        f"Right, of {those(images)}; of random defenses the mean over draws that no attack has seen. s: how far the perturbation "
        f"was pushed on. Adaptive: along the mean of a few other draws of a random defense. The search ({setup.search.steps} x "
        f"{setup.search.binary_search_steps} steps) is not at its end, and stops where the draws that it follows are just fooled, "
        "so that others often are not: this is no bound on what an attacker in L2 can do.",
    )


def more_draws(rows: Rows, setup: Setup, tried: Sequence[Subject]) -> Table:
    """Whether attackers who follow a few draws of a random defense are weak for it."""
    cells, images = [], set[str]()
    for one in tried:
        few, many = (rows.under(one.defense.text, name) for name in ("adaptive", "more draws"))
        if rows.drawn(one.defense.text) and many.height:
            few = _of(few, many)
            images |= set(many["image"])
            cells.append((one.label, _rate(few), _rate(many), _gap(many, few)))
    counts = [
        rows.crafted.filter(pl.col("experiment") == name)["source_draws"].max() for name in ("adaptive", "more draws")
    ]
    return Table(
        f"Whether more draws of {setup.net}'s random defenses help an attacker",
        ("defense", *(f"{count} draws" for count in counts), "difference"),
        tuple(cells),
        f"Right under PGD on cross-entropy along the mean of so many draws, of {those(images)}, judged as above; difference: in "
        "points, paired. Where it is below 0, more draws yet may bring an attacker more.",
    )


def _of(rows: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    return rows.join(images.select("image"), on="image", how="semi").sort("image")


def _gap(one: pl.DataFrame, other: pl.DataFrame) -> str:
    both = one.join(other, on="image", suffix="_other").sort("image")
    gap = mean_difference(both["right"].to_numpy(), both["right_other"].to_numpy())
    return f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"


def _rate(rows: pl.DataFrame) -> str:
    return mean(rows["right"].to_numpy()).percent if rows.height else ""


def _told(settings: str | None) -> str:
    return words(json.loads(settings)) if settings else ""
