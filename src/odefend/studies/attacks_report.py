"""The tables of the study of the attacks: pure functions of its rows."""

from dataclasses import dataclass
from typing import cast

import polars as pl

from odefend import intervals
from odefend.evaluation import Ledger
from odefend.evaluation.detection import success_past, threshold
from odefend.evaluation.robustness import accuracy, attacked, fooled, recovered
from odefend.intervals import Interval
from odefend.report import Table
from odefend.report.tables import points
from odefend.solver import Status
from odefend.studies.attacks import ALARMS, DETECTORS, FRESH, RANGE, TOLERANCE, TOLERANCES


@dataclass(frozen=True)
class Rows:
    """The ledger's tables, read once."""

    crafted: pl.DataFrame
    judged: pl.DataFrame
    scored: pl.DataFrame

    @classmethod
    def of(cls, ledger: Ledger, name: str | None = None) -> "Rows":
        """The tables of a finished study by its name, or of the only one in the ledger."""
        return cls(*(ledger.read(table, name) for table in ("crafted", "judged", "scored")))

    def made(self, experiment: str) -> pl.DataFrame:
        """One row per image that an attack was tried on."""
        return attacked(self.crafted.filter(pl.col("experiment") == experiment)).sort("image")

    def shown(self, experiment: str) -> pl.DataFrame:
        """One row per image and condition that it was judged under."""
        return self.judged.filter(pl.col("experiment") == experiment)


def summary(rows: Rows) -> list[Table]:
    """All tables, in the order of the study."""
    return [
        beside_foolbox(rows),
        by_precision(rows),
        random_tolerance(rows),
        detectors(rows),
        extra_distance(rows),
        on_time(rows),
    ]


def beside_foolbox(rows: Rows) -> Table:
    """The same settings here and in Foolbox: success, distance and work."""
    pairs = (
        ("C&W", "C&W, Foolbox"),
        ("BIM", "BIM, Foolbox"),
        ("BIM, L2", "BIM, L2, Foolbox"),
        ("BIM, RMS", "BIM, L2, Foolbox"),
    )
    cells = []
    for own, other in pairs:
        mine, theirs = rows.made(own), rows.made(other)
        both = _paired(mine, theirs)
        fell = both.filter(pl.col("success") & pl.col("success_other"))
        gap = intervals.mean_difference(both["success"].to_numpy(), both["success_other"].to_numpy())
        ratio = intervals.mean_ratio(fell["l2"].to_numpy(), fell["l2_other"].to_numpy())
        epsilon = mine["epsilon"][0] if mine.height else None
        cells.append(
            (
                own if epsilon is None else f"{own}, radius {epsilon:g}",
                _success(mine),
                _success(theirs),
                points(gap),
                _l2(mine),
                _l2(theirs),
                _change(ratio),
                f"{mine['gradient_calls'].mean():.0f} / {theirs['gradient_calls'].mean():.0f}",
            )
        )
    settings = rows.made("C&W")["settings"].first()
    return Table(
        "The same settings in odefend and in Foolbox",
        (
            "attack",
            "success",
            "Foolbox",
            "difference, points",
            "mean L2",
            "Foolbox",
            "L2 beside Foolbox",
            "gradients, own / Foolbox",
        ),
        tuple(cells),
        f"{_net(rows)} at tolerance {TOLERANCE:g}, {rows.made('C&W').height} images that it has right; both attack the same "
        "net and are judged by the same solver. L2 beside Foolbox: ratio of the means over images that both broke. The RMS "
        "ball is what Foolbox 1.8 and 2.0 called L2; in Foolbox 3 it is an L2 ball of its radius times the root of the "
        f"number of pixels, and stands beside that one. C&W: {settings}.",
    )


def by_precision(rows: Rows) -> Table:
    """Images that C&W made with gradients in float32 and in bfloat16, judged over tolerances."""
    names = {"C&W": "float32", "C&W, bfloat16": "bfloat16", "C&W, Foolbox": "float32, Foolbox"}
    cells = []
    common = rows.made("C&W, bfloat16").select("image")
    for experiment, name in names.items():
        made, judged = (part.join(common, on="image") for part in (rows.made(experiment), rows.shown(experiment)))
        back = [recovered(judged.filter(pl.col("rtol") == tolerance)) for tolerance in TOLERANCES]
        cells.append(
            (name, _success(made), _l2(made), f"{made['gradient_calls'].mean():.0f}", *(b.percent for b in back))
        )
    return Table(
        "C&W images won back by tolerance, searched in two precisions",
        ("gradients in", "success", "mean L2", "gradients", *(f"{t:g}" for t in TOLERANCES)),
        tuple(cells),
        f"{_net(rows)}, {common.height} images, attacked at tolerance {TOLERANCE:g} and judged at others: the share of the "
        "images that fooled it "
        "which it has right again. Every success was judged in float32, and the last round of the search in bfloat16 is "
        "in float32.",
    )


def random_tolerance(rows: Rows) -> Table:
    """Attacks that know that the tolerance is drawn beside the same that do not."""
    cells = []
    for attack in ("PGD", "C&W"):
        plain, knowing = (f"random tolerance, {kind} {attack}" for kind in ("plain", "knowing"))
        share = {name: _fooled_by_image(rows.shown(name)) for name in (plain, knowing)}
        both = share[plain].join(share[knowing], on="image", suffix="_knowing")
        gap = intervals.mean_difference(both["fooled_knowing"].to_numpy(), both["fooled"].to_numpy())
        first, second = rows.made(plain), rows.made(knowing)
        cells.append(
            (
                attack if not first.height or first["epsilon"][0] is None else f"{attack}, {first['epsilon'][0]:g}",
                str(both.height),
                intervals.mean(both["fooled"].to_numpy()).percent,
                intervals.mean(both["fooled_knowing"].to_numpy()).percent,
                points(gap),
                _l2(first),
                _l2(second),
                _extra(first, second),
            )
        )
    clean = accuracy(rows.shown("random tolerance, clean"))
    draws = rows.made("random tolerance, knowing PGD")["source_draws"].first()
    return Table(
        "A tolerance drawn anew for every answer",
        (
            "attack",
            "images",
            "plain fools",
            "knowing fools",
            "knowing minus plain, points",
            "plain L2",
            "knowing L2",
            "extra L2, paired",
        ),
        tuple(cells),
        f"{_net(rows)}, tolerance log-uniform in [{RANGE.low:g}, {RANGE.high:g}]; clean accuracy {clean.percent}. The plain "
        f"attack sees tolerance {TOLERANCE:g}; the knowing one the mean over {draws} draws of its own, the same throughout. "
        f"Judged under {FRESH} draws that no attack has seen, averaged per image, on images that were right before.",
    )


def detectors(rows: Rows) -> Table:
    """Share of images that end up misclassified and accepted, by what the attacker knows."""
    cells = []
    for detector in DETECTORS:
        for allowed in ALARMS:
            level = threshold(rows.scored, detector, allowed)
            clean = rows.scored.filter((pl.col("detector") == detector) & (pl.col("kind") == "clean"))["score"]
            cell = [detector, f"{100 * allowed:g} %", intervals.rate(int((clean > level).sum()), len(clean)).percent]
            for attack in ("PGD", "C&W"):
                plain = rows.scored.filter(
                    (pl.col("experiment") == f"plain {attack}") | (pl.col("kind") == "calibration")
                )
                past = success_past(rows.made(f"plain {attack}"), plain, detector, allowed)
                knowing = rows.made(f"knowing {attack}: {detector}, {allowed:g}")
                cell += [past.percent, _success(knowing)]
            cells.append(tuple(cell))
    made = rows.made("plain PGD")
    return Table(
        "Success against a net with a detector",
        (
            "detector",
            "alarms allowed",
            "false alarms",
            "plain PGD",
            "knowing PGD",
            "plain C&W",
            "knowing C&W",
        ),
        tuple(cells),
        f"{_net(rows)} at tolerance {TOLERANCE:g}, {made.height} images that it has right; success: misclassified, and "
        f"accepted by the detector. PGD in an L-inf ball of {made['epsilon'].first():g}; C&W without limit. Thresholds "
        f"were set on {rows.scored.filter(pl.col('kind') == 'calibration')['image'].n_unique()} other clean images; a vote "
        "has whole steps, so it alarms less than allowed. Knowing: has the detector, its threshold and its gradient.",
    )


def extra_distance(rows: Rows) -> Table:
    """What it costs C&W to slip past each detector."""
    plain, cells = rows.made("plain C&W"), []
    for detector in DETECTORS:
        for allowed in ALARMS:
            knowing = rows.made(f"knowing C&W: {detector}, {allowed:g}")
            cells.append((detector, f"{100 * allowed:g} %", _l2(plain), _l2(knowing), _extra(plain, knowing)))
    return Table(
        "What slipping past a detector costs C&W",
        ("detector", "alarms allowed", "plain L2", "knowing L2", "extra L2, paired"),
        tuple(cells),
        f"Means over images broken; extra over images that both broke. {plain['settings'].first()}",
    )


def on_time(rows: Rows) -> Table:
    """Work of the solver before and after the attack on it, and with a limit, by the attack's radius."""
    clean = rows.shown("clean")
    names = sorted(set(rows.crafted.filter(pl.col("experiment").str.starts_with("availability"))["experiment"]))
    first = rows.made(names[0])
    tried = pl.col("image").is_in(first["image"].to_list())
    clean = clean.filter(tried)
    cells = [("clean", "none", _nfe(clean), str(clean["nfe"].max()), "-", _failed(clean))]
    cap = 0
    for name in names:
        slow, capped = (rows.shown(judged).filter(tried) for judged in (name, f"{name}, capped"))
        both, cap = clean.join(slow, on="image", suffix="_attacked"), capped["max_steps"].first()
        growth = intervals.mean_ratio(both["nfe_attacked"].to_numpy(), both["nfe"].to_numpy())
        radius = f"attacked, radius {rows.made(name)['epsilon'].first():g}"
        cells.append((radius, "none", _nfe(slow), str(slow["nfe"].max()), f"x {growth.text(2)}", _failed(slow)))
        cells.append((radius, f"{cap} steps", _nfe(capped), str(capped["nfe"].max()), "-", _failed(capped)))
    return Table(
        "An attack on the solver's work",
        ("images", "cap", "mean NFE", "largest NFE", "work", "stopped by the cap"),
        tuple(cells),
        f"{_net(rows)} at tolerance {TOLERANCE:g}, {first.height} images, L-inf balls. A cap of {cap} steps is what the costliest "
        "clean image needs; an answer that was stopped says so in its status and counts as none.",
    )


def _paired(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    return one.join(other, on="image", suffix="_other")


def _success(made: pl.DataFrame) -> str:
    return intervals.rate(int(made["success"].sum()), made.height).percent


def _l2(made: pl.DataFrame) -> str:
    return intervals.mean(made.filter("success")["l2"].to_numpy()).text()


def _extra(plain: pl.DataFrame, knowing: pl.DataFrame) -> str:
    """How much farther the knowing attack went on images that both broke."""
    both = _paired(knowing, plain).filter(pl.col("success") & pl.col("success_other"))
    return f"{intervals.mean((both['l2'] - both['l2_other']).to_numpy()).text()} ({both.height} images)"


def _change(ratio: Interval) -> str:
    """As "+1.20 % [+0.90, +1.50]"."""
    if not ratio.n:
        return "no data"
    value, low, high = (100 * (bound - 1) for bound in (ratio.value, ratio.low, ratio.high))
    return f"{value:+.2f} % [{low:+.2f}, {high:+.2f}]"


def _nfe(judged: pl.DataFrame) -> str:
    return intervals.mean(judged["nfe"].to_numpy()).text(1)


def _failed(judged: pl.DataFrame) -> str:
    return intervals.rate(int((judged["status"] == int(Status.MAX_STEPS)).sum()), judged.height).percent


def _fooled_by_image(judged: pl.DataFrame) -> pl.DataFrame:
    """Each image's share of wrong answers over its draws, of the images that were right before."""
    return attacked(judged).group_by("image").agg(fooled().cast(pl.Float64).mean().alias("fooled")).sort("image")


def _net(rows: Rows) -> str:
    return cast(str, rows.crafted["net"][0])
