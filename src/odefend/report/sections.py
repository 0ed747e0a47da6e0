"""The sections of an evaluation's report, each from the rows it is about. None where there are none."""

import platform

import polars as pl
import torch

from odefend.evaluation.doubts import RARE
from odefend.evaluation.spec import Trial
from odefend.report import evaluation_tables, figures, tables
from odefend.report.page import Section
from odefend.report.questions import doubts
from odefend.report.rows import Rows
from odefend.version import code_version


def undefended(rows: Rows) -> Section:
    """What the attacks do to the nets as they are."""
    curves = [trial for trial in rows.trials("epsilon curve") if len(trial.epsilon) > 1]
    return Section(
        "The nets without a defense",
        (),
        tuple(
            (
                figures.epsilon_curve(rows.crafted.filter(pl.col("trial") == trial.name), rows.nets, trial.name),
                f"Share of rightly classified images that {trial.name} breaks, by its radius." + _of_whole_ball(trial),
            )
            for trial in curves
            if rows.made(trial.name).height
        ),
        (evaluation_tables.of_nets(rows),),
    )


def _of_whole_ball(trial: Trial) -> str:
    """What a radius that leaves nothing out says of the attack."""
    if max(trial.epsilon) < 1 or trial.made()[0].norm_name not in ("linf", "rms"):
        return ""
    return (
        f" A ball of {trial.made()[0].norm_name} radius 1 holds every image, so anything below 100 % there would be a failure "
        "of the attack."
    )


def recovery(rows: Rows, trial: Trial, at: float) -> Section | None:
    """What judging at other tolerances wins back of one search's images, beside noise and a pushing attacker."""
    about, judged = rows.evaluation, rows.about(trial, at)
    if rows.doses is None:
        return None
    drawn: list[tuple[str, str]] = [
        (
            figures.accuracy_by_tolerance(judged, about.net, about.tolerances, rows.doses, at, trial.name),
            "Where the blue and the orange band overlap, these images cannot tell the tolerance from noise of its dose. The "
            "violet curve is the blue one after the attacker pushed 10 % further.",
        ),
        (
            figures.pushed(judged, about.net, about.tolerances, about.scales, at),
            "The s-curve: what each tolerance wins back as the perturbation is multiplied by s (intervals are in the "
            "table). The noise is the strongest of those matched to a tolerance.",
        ),
    ]
    return Section(
        f"Does another tolerance undo {trial.name} at {at:g}?",
        (
            "An image attacked at one tolerance is often classified rightly at another. An attack of smallest norm "
            "aims at the decision boundary, where any change may tip an image back. Two controls tell whether that is all: "
            "input noise that changes clean images as much, and an attacker who goes on past the boundary. "
            + _boundary(judged, at),
        ),
        tuple(drawn),
        (evaluation_tables.of_recovery(rows, trial, at),),
    )


def _boundary(judged: pl.DataFrame, at: float) -> str:
    """How near the boundary the attack came, on both nets."""
    found = judged.filter((pl.col("experiment") == "recovery") & pl.col("attack_success") & (pl.col("scale") == 1.0))
    found = found.filter((pl.col("defense") == "tolerance") & (pl.col("rtol").is_null() | (pl.col("rtol") == at)))
    if not found.height:
        return "It broke no image here."
    medians = {net: part["true_margin"].median() for (net,), part in found.group_by("net", maintain_order=True)}
    return (
        "The median margin of the true class where it ended: "
        + ", ".join(f"{m:.2f} on {n}" for n, m in medians.items())
        + "."
    )


def matrix(rows: Rows, trial: Trial) -> Section:
    """Each attacked tolerance judged at each, for an attacker who knows the one that is used."""
    return Section(
        "What does an attacker do who knows the tested tolerance?",
        (
            "Such an attacker attacks at the tolerance that will be used, or at whichever works best against it: the worst "
            "number of a column. Off the diagonal stand the mismatched attacks on which a defense by tolerance is usually "
            "judged.",
        ),
        (
            (
                figures.heat(rows.crafted, rows.judged, trial.at),
                f"Accuracy under {trial.name}, on images that were right at the attacked tolerance.",
            ),
        ),
        (evaluation_tables.of_matrix(rows, trial),),
    )


def trajectories(rows: Rows) -> Section | None:
    """How states of attacked images leave those of their originals."""
    fallen = rows.traced.filter("attack_success")
    if not fallen.height:
        return None
    trials = fallen["trial"].unique(maintain_order=True).to_list()
    return Section(
        "How do attacked states leave their originals?",
        (
            "Each attacked image and its original are solved at the tolerance that was attacked. Where the distance grows along "
            "the way, the ODE carries the perturbation on; a looser tolerance may carry it less far.",
        ),
        tuple(
            (
                figures.trajectories(rows.traced.filter(pl.col("trial") == trial)),
                f"{trial}: means over the images that fooled the net, of the states h(t), of what the head's normalization makes "
                "of them, and of the angle between them.",
            )
            for trial in trials
        ),
    )


def detection(rows: Rows) -> Section | None:
    """The vote over tolerances as a detector, beside its controls."""
    vote = rows.evaluation.vote
    if vote is None or not rows.votes:
        return None
    names = [f"tolerance vote, V = {votes}" for votes in sorted(rows.votes, reverse=True)]
    names += [f"noise vote, V = {max(rows.votes)}", evaluation_tables.margin(rows)]
    return Section(
        "Does a vote over tolerances reveal attacked images?",
        (
            f"Each image is solved at V tolerances drawn log-uniformly from [{vote.low:g}, {vote.high:g}], and accepted if the "
            "largest agreeing group has at least v_min votes; v_min draws the curve. Beside it stand the controls: as many passes "
            f"under noise of the same dose (sigma {rows.vote_sigma:.4f}), and the gap between the two largest logits of a single "
            "pass.",
        ),
        (
            (
                figures.roc(rows.scored, names, evaluation_tables.pushed(rows)[:2]),
                "In the convention of Carrara et al.: clean images accepted against attacked images accepted; up and left is "
                "better. s: how far the attacker pushed on.",
            ),
        ),
        evaluation_tables.of_detectors(rows),
    )


def work(rows: Rows) -> Section | None:
    """What each tolerance costs."""
    about = rows.evaluation
    if not rows.solves or not rows.judged.filter(pl.col("experiment") == "clean").height:
        return None
    return Section(
        "What does a tolerance cost?",
        (),
        ((figures.work(rows.judged, about.net, about.tolerances), "Evaluations of the vector field per clean image."),),
        (tables.work(rows.judged, about.net, about.tolerances),),
    )


def doubted(rows: Rows) -> Section:
    """The signs of weak attacks, looked for."""
    return Section(
        "What should be doubted",
        (
            "A robustness number is worthless if the attack was weak. These are some of the usual signs of a weak attack, looked "
            f"for in the rows. Red: the sign is there. Clear: it was looked for, and by the 95 % interval it is on at most "
            f"{100 * RARE:g} % of the images. Unknown: nobody looked, or on too few images to tell. Not in the list: other attack "
            "seeds, several trained nets.",
        ),
        doubts=tuple((net, tuple(doubts(rows, net))) for net in rows.nets),
    )


def provenance(rows: Rows, seconds: float | None) -> Section:
    """Nets, images, solver and software, and how to run it again."""
    about, nets = rows.evaluation, rows.crafted.unique("net", keep="first", maintain_order=True)
    solver = rows.crafted.filter(pl.col("method").is_not_null()).head(1)
    facts = [
        (
            "nets",
            "; ".join(
                f"{one['net']}, weights {one['net_digest']}, training seed {one['training_seed']}"
                for one in nets.iter_rows(named=True)
            ),
        ),
        ("images", f"{about.data}, test split; doses, noise and thresholds from the validation split"),
        ("rows by", f"odefend {', '.join(sorted(rows.crafted['code_version'].unique()))}"),
        ("rows", f"{rows.crafted.height} crafted, {rows.judged.height} judged, {rows.scored.height} scored"),
    ]
    facts.extend(
        (
            "solver",
            f"{one['method']} with rtol = atol = tolerance, one step size per "
            f"{'image' if one['coupling'] == 'sample' else 'batch'}, end of the interval by {one['end']}, "
            f"{one['precision']}, at most {one['max_steps']} steps",
        )
        for one in solver.iter_rows(named=True)
    )
    facts.append(
        (
            "report by",
            f"odefend {code_version()}, torch {torch.__version__}, Python {platform.python_version()}",
        )
    )
    if seconds is not None:
        facts.append(("time", f"{seconds:.0f} s in the last run"))
    facts.append(("again", f"odefend evaluate {about.name}.json --out FOLDER, with the file beside this page"))
    return Section(
        "Where these numbers come from",
        (
            "The folder of this page holds the ledger: crafted, judged and scored rows in Parquet, and every adversarial image.",
        ),
        facts=tuple(facts),
    )
