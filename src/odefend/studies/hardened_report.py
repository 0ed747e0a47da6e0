"""The tables of the study of hardened nets: pure functions of its rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import norm

from odefend.attacks import AutoAttack
from odefend.evaluation import Ledger
from odefend.evaluation.detection import threshold
from odefend.evaluation.robustness import accuracy, lost
from odefend.intervals import Interval, mean, median, rate
from odefend.report import Table
from odefend.report.images import those
from odefend.studies.hardened import ALARMS, Setup, Smoothed, attacks_past_refusal, refusal, tried

RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
UNPROVABLE = "-"


@dataclass(frozen=True)
class Rows:
    """The ledger's tables, read once."""

    crafted: pl.DataFrame
    judged: pl.DataFrame
    scored: pl.DataFrame
    certified: pl.DataFrame

    @classmethod
    def of(cls, ledger: Ledger, name: str | None = None) -> "Rows":
        """The tables of a study by its name, or of all in the ledger."""
        return cls(*(ledger.read(table, name) for table in ("crafted", "judged", "scored", "certified")))

    def stands(self, net: str, epsilon: float, experiments: tuple[str, ...]) -> pl.DataFrame:
        """For each image that these attacks were tried on, whether it is right and none of them broke it, or made the solver
        fail: abstention is lost accuracy."""
        rows = self.crafted.filter(
            (pl.col("net") == net) & (pl.col("epsilon") == epsilon) & pl.col("experiment").is_in(experiments)
        )
        broken = lost() | pl.col("initially_wrong")
        return rows.group_by("image").agg(stands=~broken.any()).sort("image")

    def worst(self, net: str, epsilon: float, setup: Setup) -> pl.DataFrame:
        """The same under all attacks of the study, on the images that all are tried on; empty while one of them is missing."""
        everywhere = self.stands(net, epsilon, tried(setup))
        for name in tried(setup):
            everywhere = everywhere.join(self.stands(net, epsilon, (name,)).select("image"), on="image", how="semi")
        return everywhere


def summary(rows: Rows, setup: Setup) -> list[Table]:
    """All tables; none of what the study does not try, or, of what comes last, has not yet tried."""
    tables = [in_balls(rows, setup)] + ([distances(rows, setup)] if setup.thorough else [])
    tables += [by_autoattack(rows, setup)] if (rows.crafted["experiment"] == "AutoAttack").any() else []
    tables += [certificates(rows, setup)] if setup.smoothed else []
    return tables + ([rejection(rows, setup)] if setup.refusing else [])


def in_balls(rows: Rows, setup: Setup) -> Table:
    """Robust accuracy of each net."""
    cells, images = [], those(rows.crafted.filter(pl.col("experiment") == "PGD")["image"])
    for net in setup.nets:
        judged = rows.judged.filter((pl.col("experiment") == "clean") & (pl.col("net") == net))
        right = accuracy(judged).percent
        for epsilon in setup.epsilons:
            each = [_share(rows.stands(net, epsilon, (name,))) for name in tried(setup)]
            union = rows.stands(net, epsilon, tried(setup))
            cells.append((net, right, f"{epsilon:g}", *each, _share(union), _share(rows.worst(net, epsilon, setup))))
    return Table(
        f"Accuracy in L-inf balls on {setup.data}",
        ("net", "clean", "radius", *tried(setup), "all attacks", "all attacks, on images that met each"),
        tuple(cells),
        f"Right and unbroken, of {images}. PGD: {setup.steps} steps, {_times(setup.restarts)}, on cross-entropy or the margin (the "
        f"loss of C&W); adaptive: the worst of PGD of {setup.steps // 2} steps along other solves of an ODE net (1e-5, 0.1, rk4 in "
        f"steps of 0.1) and another net's gradient; through pyautoattack on the first {setup.thorough}: Square of {setup.queries} "
        f"queries, and APGD (on cross-entropy, at targets) and FAB of {setup.auto} steps, {_size_of_autoattack(setup)}. All "
        "attacks: image by image under whatever it met, which leaves images that met no part of AutoAttack better off than they "
        "may be; and on the images alone that met each attack.",
    )


def _size_of_autoattack(setup: Setup) -> str:
    """What the parts of AutoAttack are beside the version that is published."""
    if setup.queries >= AutoAttack.queries and setup.auto >= AutoAttack.steps:
        return "the parts of AutoAttack's standard version"
    return f"shorter than in AutoAttack's standard version ({AutoAttack.queries} queries, {AutoAttack.steps} steps)"


def distances(rows: Rows, setup: Setup) -> Table:
    """How far C&W moves the images that break each net."""
    cells = []
    for net in setup.nets:
        made = rows.crafted.filter((pl.col("experiment") == "C&W") & (pl.col("net") == net))
        made = made.filter(~pl.col("initially_wrong"))
        far = np.where(made["success"].to_numpy(), made["l2"].to_numpy(), np.inf)
        cells.append((net, rate(int(np.isfinite(far).sum()), len(far)).percent, median(far).text(2)))
    return Table(
        f"How far C&W goes to break nets on {setup.data}",
        ("net", "broken", "median L2"),
        tuple(cells),
        f"C&W by the preset {setup.data}-l2, which looks for the least L2 and knows no ball, on those of the first "
        f"{setup.thorough} test images that are right without it. An upper bound: a longer search comes nearer.",
    )


def by_autoattack(rows: Rows, setup: Setup) -> Table:
    """What the standard version of AutoAttack leaves, alone and with all else that was tried."""
    cells, epsilon = [], max(setup.epsilons)
    for net in setup.nets:
        alone, together = (
            rows.stands(net, epsilon, names) for names in (("AutoAttack",), (*tried(setup), "AutoAttack"))
        )
        cells.append((net, _share(alone), _share(together.join(alone.select("image"), on="image", how="semi"))))
    return Table(
        f"Under AutoAttack on {setup.data}",
        ("net", f"AutoAttack, radius {epsilon:g}", "and all attacks above"),
        tuple(cells),
        f"Right and unbroken, of the first {setup.standard} test images, by the standard version (Croce & Hein, arXiv 2003.01690: "
        "APGD, FAB and Square, 100 steps, 5000 queries), and by that or any other attack that an image met in that ball.",
    )


def overview(rows: Rows, setup: Setup) -> Table:
    """Each net in one row: accuracy, clean and under the worst of the attacks, what is certified, and what an answer costs."""
    cells = []
    for net in setup.nets:
        judged = rows.judged.filter((pl.col("experiment") == "clean") & (pl.col("net") == net))
        labels = [one.label for one in setup.smoothed if one.net == net]
        mine = rows.certified.filter(pl.col("experiment").is_in(labels))
        cells.append(
            (
                Path(net).stem,
                accuracy(judged).percent,
                *(_share(rows.worst(net, epsilon, setup)) for epsilon in setup.epsilons),
                *(_cell(mine, radius, setup.smoothed[0], setup) for radius in _radii(setup)),
                f"{mean(judged['nfe'].to_numpy()).value:.1f}",
            )
        )
    certified = tuple(f"certified, L2 radius {radius:g}" for radius in _radii(setup))
    worst = tuple(f"worst case, L-inf {epsilon:g}" for epsilon in setup.epsilons)
    smoothing = "".join(
        f" Certified: on {setup.certified}, by {setup.draws} draws of noise of sigma {one.sigma:g}."
        for one in setup.smoothed[:1]
    )
    return Table(
        f"Before and after, on {setup.data}",
        ("net", "clean accuracy", *worst, *certified, "NFE per image"),
        tuple(cells),
        f"{setup.images} test images. Worst case: PGD of {setup.steps} steps on cross-entropy and on the margin, "
        f"{_times(setup.restarts)}, and along other solves and the other net's gradient, image by image."
        f"{smoothing}",
    )


def certificates(rows: Rows, setup: Setup) -> Table:
    """Certified accuracy by radius."""
    cells = []
    for one in setup.smoothed:
        mine = rows.certified.filter(pl.col("experiment") == one.label)
        if not mine.height:
            continue
        nfe = mine["nfe"].mean()
        assert isinstance(nfe, float)
        cells.append(
            (
                one.label,
                *(_cell(mine, radius, one, setup) for radius in RADII),
                rate(mine.filter(pl.col("prediction") < 0).height, mine.height).percent,
                f"{nfe:,.0f}",
            )
        )
    return Table(
        f"Certified accuracy on {setup.data}",
        ("net", *(f"L2 radius {radius:g}" for radius in RADII), "abstains", "NFE per image"),
        tuple(cells),
        f"Right and certified, of {those(rows.certified['image'])}; {setup.draws} draws, alpha {setup.alpha:g}. So many "
        f'prove no more than {_provable(setup):.2f} sigma ("{UNPROVABLE}": beyond that). Radii are of images: what is proven of '
        "states, and the most that can be, is divided by the norm of the stem. A net without a solver takes no evaluations of "
        "a field.",
    )


def _provable(setup: Setup) -> float:
    """The largest radius that so many draws can prove, in standard deviations: where all of them agree."""
    return float(norm.ppf(setup.alpha ** (1 / setup.draws)))


def _cell(certified: pl.DataFrame, radius: float, one: Smoothed, setup: Setup) -> str:
    beyond = one.where == "input" and radius >= _provable(setup) * one.sigma
    return UNPROVABLE if beyond else _held(certified, radius).percent


def _radii(setup: Setup) -> tuple[float, ...]:
    """Radii to tell of nets that are certified under one noise: some that its draws can prove."""
    return tuple(share * setup.smoothed[0].sigma for share in (0.5, 1.0, 1.5)) if setup.smoothed else ()


def _held(certified: pl.DataFrame, radius: float) -> Interval:
    """The share of images that are right and certified within a radius."""
    held = certified.filter(pl.col("correct") & (pl.col("radius") > radius))
    return rate(held.height, certified.height)


def curves(rows: Rows, setup: Setup) -> dict[str, tuple[list[float], list[Interval]]]:
    """Certified accuracy by radius, as a figure shows it."""
    found = {}
    for one in setup.smoothed:
        mine = rows.certified.filter(pl.col("experiment") == one.label)
        if mine.height:
            radii = [step / 20 for step in range(int(20 * float(mine["radius"].to_numpy().max())) + 2)]
            found[one.label] = (radii, [_held(mine, radius) for radius in radii])
    return found


def rejection(rows: Rows, setup: Setup) -> Table:
    """Robust accuracy where a net may refuse, under an attack on both."""
    cells = []
    for net, name in setup.refusing:
        scored = rows.scored.filter((pl.col("net") == net) & (pl.col("detector") == name))
        judged = rows.judged.filter((pl.col("experiment") == "clean") & (pl.col("net") == net))
        for allowed in ALARMS:
            level = threshold(scored, name, allowed)
            kept = scored.filter((pl.col("kind") == "clean") & (pl.col("score") <= level)).select("image")
            answers = judged.join(kept, on="image", how="semi")
            refused = rate(judged.height - answers.height, judged.height)
            cells.append(
                (
                    f"{net}, {name}",
                    f"{100 * allowed:g} %",
                    refused.percent,
                    accuracy(judged).percent,
                    *(
                        _share(_past_refusal(rows, setup, net, epsilon, allowed, kept["image"].to_list()))
                        for epsilon in setup.radii
                    ),
                )
            )
    return Table(
        f"Refusing on {setup.data}, under attacks on net and refusal together",
        (
            "net and detector",
            "alarms allowed",
            "clean images refused",
            "clean accuracy",
            *(f"withstood, radius {epsilon:g}" for epsilon in setup.radii),
        ),
        tuple(cells),
        f"Withstood: of {setup.refused} test images, those that the net has right and accepts, and for which no attack finds an "
        f"image that is wrong and accepted: PGD of {setup.steps} steps with the gradients joined in two ways, "
        f"{_times(setup.restarts)}, and of {5 * setup.steps // 2} small steps with momentum on the margin, from the clean image. "
        f"Thresholds: conformal, from {setup.calibration} validation images.",
    )


def _past_refusal(
    rows: Rows, setup: Setup, net: str, epsilon: float, allowed: float, accepted: list[str]
) -> pl.DataFrame:
    """For each image, whether it is right and accepted, and no attack on net and refusal came through."""
    names = tuple(refusal(way, allowed) for way in attacks_past_refusal(setup, epsilon))
    each = rows.stands(net, epsilon, names)
    return each.with_columns(pl.col("stands") & pl.col("image").is_in(accepted))


def _share(each: pl.DataFrame) -> str:
    return rate(int(each["stands"].sum()), each.height).percent if each.height else ""


def _times(restarts: int) -> str:
    return f"{restarts} start{'s' if restarts > 1 else ''}"
