"""The tables of the study of the detectors: pure functions of its rows."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from odefend import intervals
from odefend.evaluation import Ledger
from odefend.evaluation.detection import Detection, detection, success_past
from odefend.evaluation.robustness import attacked
from odefend.intervals import Interval
from odefend.report import Table
from odefend.studies.detectors import ALARMS, TOLERANCE

PLAIN = "plain C&W"


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

    @property
    def detectors(self) -> list[str]:
        """Their names, in the order of how well they rank what C&W made."""
        names = self.scored["detector"].unique(maintain_order=True).to_list()
        plain = self.before(PLAIN)
        return sorted(names, key=lambda name: -detection(plain, name, 1.0).area.value)

    @property
    def scales(self) -> list[float]:
        """How far C&W's images were pushed on."""
        return sorted(self.scored.filter(pl.col("experiment") == PLAIN)["scale"].unique())


def summary(rows: Rows) -> list[Table]:
    """All tables, in the order of the study."""
    return [ranking(rows), caught(rows), success(rows), extra_distance(rows)]


def ranking(rows: Rows) -> Table:
    """Area under the ROC of each detector, as the attacker pushes on."""
    plain = rows.before(PLAIN)
    cells = [
        (
            name,
            str(plain.filter(pl.col("detector") == name)["cost"].max()),
            *(detection(plain, name, scale).area.text() for scale in rows.scales),
        )
        for name in rows.detectors
    ]
    clean = plain.filter(pl.col("kind") == "clean")["image"].n_unique()
    fooled = int(rows.made(PLAIN)["success"].sum())
    return Table(
        "How detectors rank images of an attacker who knows nothing of them",
        ("detector", "passes", *(f"AUROC, s = {scale:g}" for scale in rows.scales)),
        tuple(cells),
        f"{_net(rows)} at tolerance {TOLERANCE:g}: {clean} clean test images, among them the originals, against {fooled} that "
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


def _parts(one: Detection, far: Detection) -> tuple[str, str, str]:
    return one.false_alarms.percent, one.caught.percent, far.caught.percent


def success(rows: Rows) -> Table:
    """Share of images that end up misclassified and accepted, by what the attacker knows."""
    cells = []
    for name in rows.detectors:
        for allowed in ALARMS:
            cell = [name, f"{100 * allowed:g} %"]
            for attack in ("C&W", "PGD"):
                knowing = rows.made(f"knowing {attack}: {name}, {allowed:g}")
                tried = knowing["image"].to_list()
                plain = rows.made(f"plain {attack}").filter(pl.col("image").is_in(tried))
                past = success_past(plain, rows.before(f"plain {attack}"), name, allowed)
                cell += [past.percent, intervals.rate(int(knowing["success"].sum()), knowing.height).percent]
            cells.append(tuple(cell))
    made = rows.made("plain PGD")
    return Table(
        "Success past a detector",
        ("detector", "alarms allowed", "plain C&W", "knowing C&W", "plain PGD", "knowing PGD"),
        tuple(cells),
        f"{_net(rows)}: misclassified and accepted, of the images that it has right; 100 % minus this is the robust accuracy with "
        f"reject. C&W without limit; PGD in an L-inf ball of {made['epsilon'].first():g}, {made['steps'].first()} steps. Knowing: "
        "has the detector, its threshold and its gradient, or that of a stand-in, and other random draws.",
    )


def extra_distance(rows: Rows) -> Table:
    """What it costs C&W to slip past each detector."""
    plain, cells = rows.made(PLAIN), []
    for name in rows.detectors:
        cell = [name]
        for allowed in ALARMS:
            knowing = rows.made(f"knowing C&W: {name}, {allowed:g}")
            both = knowing.join(plain, on="image", suffix="_plain").filter(pl.col("success") & pl.col("success_plain"))
            cell.append(_more(intervals.mean_ratio(both["l2"].to_numpy(), both["l2_plain"].to_numpy())))
        cells.append(tuple(cell))
    return Table(
        "What slipping past a detector costs C&W",
        ("detector", *(f"extra L2 at {100 * allowed:g} % alarms" for allowed in ALARMS)),
        tuple(cells),
        f"Ratio of mean L2 norms, minus 1, over images that both the knowing and the plain attack broke; the plain one's mean L2 "
        f"is {intervals.mean(np.asarray(plain.filter('success')['l2'])).text()}.",
    )


def _more(ratio: Interval) -> str:
    """As "+12 % [+9, +15]"."""
    if not ratio.n:
        return "no data"
    value, low, high = (100 * (bound - 1) for bound in (ratio.value, ratio.low, ratio.high))
    return f"{value:+.0f} % [{low:+.0f}, {high:+.0f}]"


def _net(rows: Rows) -> str:
    return str(rows.crafted["net"][0])


def _searched(rows: Rows) -> str:
    """The search's settings, in words."""
    made = rows.made(PLAIN)
    return (
        f"C&W: {made['steps'].first()} steps a round, {made['gradient_calls'].mean():.0f} gradients an image on average"
    )
