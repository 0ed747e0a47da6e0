"""The tables of the study of the detectors: pure functions of its rows."""

import math
from dataclasses import dataclass

import polars as pl

from odefend import intervals
from odefend.evaluation import Ledger
from odefend.evaluation.detection import Detection, area_difference, detection, precision, threshold
from odefend.evaluation.robustness import attacked
from odefend.intervals import Interval
from odefend.report import Table
from odefend.studies.detectors import ALARMS, known

PLAIN, BASELINE = "plain C&W", "one-pass-margin"
NOT_TRIED = "not tried"
WAYS = {"C&W": ("selective",), "PGD": ("selective", "joint")}
"""How each attack that knows a detector may have joined its gradient with the net's."""


@dataclass(frozen=True)
class Rows:
    """The ledger's tables, read once. Of attacked images `scored` has those that fooled the net."""

    crafted: pl.DataFrame
    scored: pl.DataFrame

    @classmethod
    def of(cls, ledger: Ledger, name: str | None = None) -> "Rows":
        """The tables of a finished study by its name, or of the only one in the ledger."""
        crafted, scored = (ledger.read(table, name) for table in ("crafted", "scored"))
        fooled = crafted.filter(pl.col("success") & ~pl.col("initially_wrong")).select(
            pl.col("key").alias("crafted"), "image"
        )
        clean = scored.filter(pl.col("crafted").is_null())
        return cls(crafted, pl.concat([clean, scored.join(fooled.unique(), on=["crafted", "image"], how="semi")]))

    def made(self, experiment: str) -> pl.DataFrame:
        """One row per image that an attack was tried on."""
        return attacked(self.crafted.filter(pl.col("experiment") == experiment)).sort("image")

    def before(self, experiment: str) -> pl.DataFrame:
        """The scores of clean images, and of those of one attack."""
        return self.scored.filter((pl.col("experiment") == experiment) | pl.col("crafted").is_null())

    def past(self, experiment: str, detector: str, allowed: float) -> pl.DataFrame:
        """For each image that an attack was tried on, whether it fools the net `past` the detector: one that draws at random is
        asked anew, if the attack knew it."""
        made, level = self.made(experiment), threshold(self.scored, detector, allowed)
        scores = self.scored.filter((pl.col("experiment") == experiment) & (pl.col("scale") == 1.0))
        again = scores.filter(pl.col("detector") == f"{detector}, fresh")
        told = again if again.height else scores.filter(pl.col("detector") == detector)
        if experiment.startswith("knowing") and not again.height:  # the attack's own success has the detector in it
            return made.select("image", past="success")
        accepted = told.filter(pl.col("score") <= level).select("image").unique()
        return made.select("image", past=pl.col("success") & pl.col("image").is_in(accepted["image"].to_list()))

    def knowing(self, attack: str, detector: str, allowed: float) -> list[str]:
        """The experiments of an attack that knew the detector, and got past at least so many alarms."""
        tried = set(self.crafted["experiment"].unique())
        names = (known(attack, way, detector, aim) for way in WAYS[attack] for aim in ALARMS if aim >= allowed)
        return [name for name in names if name in tried]

    @property
    def detectors(self) -> list[str]:
        """Their names, in the order of how well they rank what C&W made."""
        names = self.scored.filter(pl.col("kind") == "clean")["detector"].unique(maintain_order=True).to_list()
        plain = self.before(PLAIN)
        return sorted(names, key=lambda name: -detection(plain, name, 1.0).area.value)

    @property
    def scales(self) -> list[float]:
        """How far C&W's images were pushed on."""
        return sorted(self.scored.filter(pl.col("experiment") == PLAIN)["scale"].unique())


def summary(rows: Rows) -> list[Table]:
    """All tables, in the order of the study; none in which nothing was tried yet."""
    tables = [ranking(rows), caught(rows), everyday(rows), success(rows), extra_distance(rows)]
    return [table for table in tables if any(cell != NOT_TRIED for row in table.rows for cell in row[1:])]


def ranking(rows: Rows) -> Table:
    """Area under the ROC of each detector, as the attacker pushes on."""
    plain = rows.before(PLAIN)
    cells = [
        (
            name,
            str(plain.filter(pl.col("detector") == name)["cost"].max()),
            *(detection(plain, name, scale).area.text() for scale in rows.scales),
            "" if name == BASELINE else _signed(area_difference(plain, name, BASELINE, rows.scales[-1])),
        )
        for name in rows.detectors
    ]
    clean = plain.filter(pl.col("kind") == "clean")["image"].n_unique()
    fooled = int(rows.made(PLAIN)["success"].sum())
    return Table(
        "How detectors rank images of an attacker who knows nothing of them",
        (
            "detector",
            "passes",
            *(f"AUROC, s = {scale:g}" for scale in rows.scales),
            f"more than the margin's, s = {rows.scales[-1]:g}",
        ),
        tuple(cells),
        f"{_net(rows)}: {clean} clean test images, among them the originals, against {fooled} that "
        f"C&W made and that fool the net. {_searched(rows)}. s: how far its perturbation was pushed on. Passes: through the "
        "net, for one score.",
    )


def caught(rows: Rows) -> Table:
    """What each detector catches of the same images at conformal thresholds, and its false alarms."""
    plain, cells = rows.before(PLAIN), []
    first, last = rows.scales[0], rows.scales[-1]
    for name in rows.detectors:
        found = [detection(plain, name, scale, allowed) for allowed in ALARMS for scale in (first, last)]
        cells.append(
            (name, *(part for one, far in zip(found[::2], found[1::2], strict=True) for part in _parts(one, far)))
        )
    held_out = plain.filter(pl.col("kind") == "calibration")["image"].n_unique()
    return Table(
        "What detectors catch at calibrated thresholds",
        (
            "detector",
            *(
                head
                for allowed in ALARMS
                for head in (
                    f"false alarms at {100 * allowed:g} %",
                    f"caught, s = {first:g}",
                    f"caught, s = {last:g}",
                )
            ),
        ),
        tuple(cells),
        f"Thresholds: conformal, from {held_out} other clean images. A score of few values alarms less than allowed.",
    )


def everyday(rows: Rows) -> Table:
    """False alarms on clean images changed as in everyday use, and how many alarms are attacks where few images are."""
    changed = rows.scored.filter(pl.col("kind") == "benign")
    changes = sorted(changed["experiment"].unique())
    plain, cells = rows.before(PLAIN), []
    for name in rows.detectors:
        cell = [name]
        for allowed in ALARMS:
            found, level = detection(plain, name, rows.scales[-1], allowed), threshold(plain, name, allowed)
            share = precision(found.caught.value, found.false_alarms.value)
            cell.append("no alarm" if math.isnan(share) else f"{100 * share:.0f} %")
            for change in changes:
                scores = changed.filter((pl.col("detector") == name) & (pl.col("experiment") == change))["score"]
                cell.append(intervals.rate(int((scores > level).sum()), len(scores)).percent)
        cells.append(tuple(cell))
    heads = [
        f"{head}, {100 * allowed:g} % allowed"
        for allowed in ALARMS
        for head in ("precision", *(f"alarms on {change}" for change in changes))
    ]
    return Table(
        "What an alarm means from day to day",
        ("detector", *heads),
        tuple(cells),
        f"Precision: the share of alarms that are attacks, where 1 % of all images is attacked, by C&W at s = "
        f"{rows.scales[-1]:g} and the false alarms measured on clean images. The other columns: clean images after a change that "
        "is no attack, at thresholds that were set without it.",
    )


def _parts(one: Detection, far: Detection) -> tuple[str, str, str]:
    return one.false_alarms.percent, one.caught.percent, far.caught.percent


def success(rows: Rows) -> Table:
    """Share of images that end up misclassified and accepted, by what the attacker knows."""
    cells = []
    for name in rows.detectors:
        for allowed in ALARMS:
            cell = [name, f"{100 * allowed:g} %"]
            for attack in WAYS:
                found = [rows.past(made, name, allowed) for made in rows.knowing(attack, name, allowed)]
                tried = (found[0] if found else rows.made(f"plain {attack}"))["image"].to_list()
                plain = rows.past(f"plain {attack}", name, allowed).filter(pl.col("image").is_in(tried))
                unwatched = rows.made(f"plain {attack}").filter(pl.col("image").is_in(tried))
                worst = pl.concat([plain, *found]).group_by("image").agg(pl.col("past").any())
                cell += [_share(unwatched["success"]), _share(plain["past"])]
                cell.append(_share(worst["past"]) if found else NOT_TRIED)
            cells.append(tuple(cell))
    made = rows.made("plain PGD")
    heads = (f"{attack}, {how}" for attack in WAYS for how in ("no detector", "plain", "knowing"))
    return Table(
        "Success past a detector",
        ("detector", "alarms allowed", *heads),
        tuple(cells),
        f"{_net(rows)}: misclassified and accepted, of the images that it has right. C&W without limit; PGD in an L-inf ball of "
        f"{made['epsilon'].first():g}, {made['steps'].first()} steps. Plain: knows nothing of the detector. Knowing: the worst "
        "case per image of the plain attack and of those that have the detector, its threshold and its gradient or that of a "
        "stand-in; of a detector that draws at random, judged under draws that no attack has seen. Robust accuracy with reject "
        "is at most 100 % minus this.",
    )


def extra_distance(rows: Rows) -> Table:
    """What it costs C&W to slip past each detector."""
    plain, cells = rows.made(PLAIN), []
    for name in rows.detectors:
        cell = [name]
        for allowed in ALARMS:
            made = known("C&W", "selective", name, allowed)
            if made not in rows.knowing("C&W", name, allowed):
                cell.append(NOT_TRIED)
                continue
            past = rows.past(made, name, allowed).filter("past")
            knowing = rows.made(made).join(past, on="image", how="semi")
            both = knowing.join(plain, on="image", suffix="_plain").filter("success_plain")
            ratio = intervals.mean_ratio(both["l2"].to_numpy(), both["l2_plain"].to_numpy())
            cell.append(
                f"{_more(ratio)} ({both.height} of {rows.made(made).height} images)" if both.height else "never past"
            )
        cells.append(tuple(cell))
    return Table(
        "What slipping past a detector costs C&W",
        ("detector", *(f"extra L2 at {100 * allowed:g} % alarms" for allowed in ALARMS)),
        tuple(cells),
        "Ratio of the mean L2 norms of the knowing and of the plain attack, minus 1, over the images that both broke, the knowing "
        "one past the detector. An image that is never got past is not in it: see the success beside it.",
    )


def _share(hits: pl.Series) -> str:
    return intervals.rate(int(hits.sum()), len(hits)).percent


def _more(ratio: Interval) -> str:
    """As "+12 % [+9, +15]"."""
    if not ratio.n:
        return "no data"
    value, low, high = (100 * (bound - 1) for bound in (ratio.value, ratio.low, ratio.high))
    return f"{value:+.0f} % [{low:+.0f}, {high:+.0f}]"


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" if found.n else "no data"


def _net(rows: Rows) -> str:
    """The net, and the tolerance that it is asked at."""
    net, tolerance = rows.crafted["net"][0], rows.crafted["rtol"][0]
    return str(net) if tolerance is None else f"{net} at tolerance {tolerance:g}"


def _searched(rows: Rows) -> str:
    """The search's settings, in words."""
    made = rows.made(PLAIN)
    return (
        f"C&W: {made['steps'].first()} steps a round, {made['gradient_calls'].mean():.0f} gradients an image on average"
    )
