"""The report of an evaluation: what of its rows goes where on the page, and the short tables for the terminal.

A section stands only where the evaluation has what it is about.
"""

import json
import platform
from pathlib import Path

import numpy as np
import polars as pl
import torch

from odefend.data import DATASETS
from odefend.errors import DataError
from odefend.evaluation.robustness import attacked
from odefend.evaluation.spec import Trial
from odefend.files import make_folder, write_text
from odefend.report import figures, findings, tables
from odefend.report.page import Page, Section, write_page
from odefend.report.rows import Rows
from odefend.report.tables import Table


def write(rows: Rows, folder: Path, seconds: float | None = None) -> Path:
    """Write NAME.html, and its tables as NAME-tables/*.csv, .md and .tex; `seconds`: how long the last run took. Returns
    the page's path."""
    name = rows.evaluation.name
    write_page(page(rows, seconds), folder / f"{name}.html")
    tables_there = make_folder(folder / f"{name}-tables")
    for number, table in enumerate(summary(rows), 1):
        for kind, text in (("csv", table.csv), ("md", table.markdown), ("tex", table.latex)):
            write_text(tables_there / f"{number}.{kind}", text + "\n")
    return folder / f"{name}.html"


def page(rows: Rows, seconds: float | None = None) -> Page:
    """The whole report."""
    about = rows.evaluation
    control = (
        f" Beside it stands {about.control}, a net without a solver: what it shows as well is not owed to the ODE."
        if about.control
        else ""
    )
    unfinished = "" if rows.finished else " The evaluation is not finished: this is what its rows say so far."
    return Page(
        about.title or about.name,
        f"{about.net}, attacked on up to {about.images} test images of {about.data} that it was not trained on.{control} Every "
        "number is read off the ledger beside this page; brackets hold 95 % confidence intervals over images, which are wide "
        f"for few; they do not cover other training runs or attack seeds.{unfinished}",
        lessons(rows),
        tuple(
            section
            for section in (
                _threat(rows),
                _nets(rows),
                *(_recovery(rows, trial, at) for trial, at in rows.everywhere()),
                *(_matrix(rows, trial) for trial in rows.matrices()),
                _trajectories(rows),
                _detection(rows),
                _work(rows),
                _gallery(rows),
                _doubts(rows),
                _provenance(rows, seconds),
            )
            if section is not None
        ),
    )


def summary(rows: Rows) -> tuple[Table, ...]:
    """What the terminal shows."""
    found = [_net_table(rows)]
    found += [_recovery_table(rows, trial, at) for trial, at in rows.everywhere()]
    found += [_matrix_table(rows, trial) for trial in rows.matrices()]
    if rows.votes:
        found.append(_detectors(rows))
    return tuple(found)


def lessons(rows: Rows) -> tuple[str, ...]:
    """The findings, in the order of the argument."""
    about, found = rows.evaluation, list[str]()
    matrix = next(iter(rows.matrices()), None)
    if about.epsilon is not None:
        grid = matrix.at if matrix else (about.tolerance if rows.solves else None,)
        found.append(findings.verdict(rows.doubts(about.net), rows.balls, about.net, about.epsilon, rows.judged, grid))
    for trial in rows.trials("minimum norm"):
        if about.control and trial.control:
            at = about.attacked_at(trial)[0]
            here = rows.crafted.filter(pl.col("rtol").is_null() | (pl.col("rtol") == at))
            found.append(findings.undefended(here, about.net, about.control, trial.name))
    for trial, at in rows.everywhere() if rows.sigmas else ():
        judged = rows.about(trial, at)
        if at == about.tolerance:
            found.append(findings.against_noise(judged, about.net, rows.sigmas, trial.name))
        tight = sorted(about.tolerances)[:2]
        if len(tight) == 2 and at > tight[1]:
            found.append(findings.numerical_error(judged, about.net, at, tight[0], tight[1], trial.name))
        if at == about.tolerance:
            found.append(findings.pushing_on(judged, about.net, rows.sigmas))
    if matrix and about.epsilon is not None:
        found.append(findings.best_response(rows.balls, rows.judged, matrix.at, about.net, about.epsilon))
    if rows.votes:
        most = max(rows.votes)
        found.append(
            findings.detecting(
                rows.scored, f"tolerance vote, V = {most}", f"noise vote, V = {most}", _margin(rows), _pushed(rows)[:2]
            )
        )
    if rows.solves:
        found.append(findings.clean_cost(rows.judged, about.net, about.tolerances))
    return tuple(found)


def _margin(rows: Rows) -> str:
    return f"one-pass margin ({rows.evaluation.net})"


def _net_table(rows: Rows) -> Table:
    about = rows.evaluation
    return tables.nets(
        rows.crafted,
        rows.judged,
        rows.nets,
        about.tolerance,
        [trial.name for trial in rows.trials("minimum norm") if about.tolerance in about.attacked_at(trial)],
        [
            trial.name
            for trial in rows.trials("epsilon curve")
            if about.epsilon in trial.epsilon and about.tolerance in about.attacked_at(trial)
        ],
        about.epsilon,
    )


def _recovery_table(rows: Rows, trial: Trial, at: float) -> Table:
    about = rows.evaluation
    return tables.recovery(rows.about(trial, at), about.net, about.tolerances, rows.sigmas, at, trial.name)


def _matrix_table(rows: Rows, trial: Trial) -> Table:
    norms = rows.made(trial.name)["norm"].unique().to_list()
    crafted = rows.crafted.filter(pl.col("norm").is_in(norms))
    return tables.matrix(crafted, rows.judged, trial.at, rows.evaluation.net, trial.epsilon[0], trial.name)


def _detectors(rows: Rows) -> Table:
    names = [f"{kind} vote, V = {votes}" for kind in ("tolerance", "noise") for votes in rows.votes]
    return tables.detectors(rows.scored, [*names, _margin(rows)], _pushed(rows))


def _pushed(rows: Rows) -> list[float]:
    """How far the images that votes see were pushed, the least first."""
    return sorted(rows.evaluation.vote.scales) if rows.evaluation.vote else []


def _threat(rows: Rows) -> Section:
    about, facts = rows.evaluation, list[tuple[str, str]]()
    for trial in about.trials:
        made = rows.crafted.filter(pl.col("trial") == trial.name)
        if made.height:
            facts.append((trial.name, _told(trial, made)))
    return Section(
        "Who attacks, and how",
        (
            "The attacker has the net and its weights and may change every pixel. Pixels are in [0, 1]. Attacks are untargeted "
            "unless said otherwise. Images that the net gets wrong unattacked are left out of every success rate.",
            "Knowledge: an attack knows the tolerance it attacks and follows the gradients that are named with it. None here "
            "knows of another tolerance used for judging, of random tolerances, or of a detector; what is judged at a tolerance "
            "that was not attacked, or detected, can only be less against one who does.",
            *(_course(rows, trial) for trial in rows.trials("minimum norm")),
        ),
        facts=tuple(facts),
    )


def _told(trial: Trial, made: pl.DataFrame) -> str:
    """An attack's settings as a reader would write them."""
    row = made.row(0, named=True)
    settings = {key: value for key, value in json.loads(row["settings"]).items() if key != "epsilon"}
    parts = [f"{row['attack']}, {row['norm']}"]
    if trial.epsilon:
        parts.append("radius " + ", ".join(f"{epsilon:g}" for epsilon in trial.epsilon))
    parts.append(_plainly(json.dumps(settings)))
    nets = ", ".join(made["net"].unique(maintain_order=True).to_list())
    at = sorted(value for value in made["rtol"].unique() if value is not None)
    parts.append(f"on {nets}" + (f" at tolerance {', '.join(f'{value:g}' for value in at)}" if at else ""))
    if trial.source:
        parts.append(
            f"gradients of {row['source']}" + (f" at {row['source_rtol']:g}" if row["source_rtol"] is not None else "")
        )
    if row["source_gradient"]:
        parts.append(f"{row['source_gradient']} gradients")
    return "; ".join(part for part in parts if part) + f"; {made['image'].n_unique()} images"


def _course(rows: Rows, trial: Trial) -> str:
    """How a search for the smallest change converged."""
    made = attacked(rows.made(trial.name, at=(trial.at or (rows.evaluation.tolerance,))[0]))
    broken = made.filter("success")["history"]
    if not len(made):
        return f"{trial.name} has not come to any image yet."
    if not len(broken):
        return f"{trial.name} broke no image of {rows.evaluation.net}."
    rounds = int(broken.list.len().min() or 0)  # type: ignore[arg-type]
    course = [f"{np.median(broken.list.get(step).to_numpy()):.3f}" for step in range(rounds)]
    return (
        f"Convergence of {trial.name} on {rows.evaluation.net}: over the images it broke in the end, the median "
        f"{made['norm'][0]} norm after each round of its search was {', '.join(course)} (inf: not broken yet). It used "
        f"{made['gradient_calls'].mean():.0f} gradients per image on average."
    )


def _plainly(settings: str) -> str:
    """Settings as a reader would write them."""
    values = {key.replace("_", " "): value for key, value in json.loads(settings).items() if value is not None}
    return ", ".join(
        f"{key} {'yes' if value is True else 'no' if value is False else value}" for key, value in values.items()
    )


def _nets(rows: Rows) -> Section:
    curves = [trial for trial in rows.trials("epsilon curve") if len(trial.epsilon) > 1]
    return Section(
        "The nets without a defense",
        (),
        tuple(
            (
                figures.epsilon_curve(rows.crafted.filter(pl.col("trial") == trial.name), rows.nets, trial.name),
                f"Share of rightly classified images that {trial.name} breaks, by its radius. A ball of linf or rms radius 1 "
                "holds every image, so anything below 100 % there would be a failure of the attack.",
            )
            for trial in curves
            if rows.made(trial.name).height
        ),
        (_net_table(rows),),
    )


def _recovery(rows: Rows, trial: Trial, at: float) -> Section | None:
    about, judged = rows.evaluation, rows.about(trial, at)
    if not rows.sigmas:
        return None
    drawn: list[tuple[str, str]] = [
        (
            figures.accuracy_by_tolerance(judged, about.net, about.tolerances, rows.sigmas, at, trial.name),
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
        (_recovery_table(rows, trial, at),),
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


def _matrix(rows: Rows, trial: Trial) -> Section:
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
        (_matrix_table(rows, trial),),
    )


def _trajectories(rows: Rows) -> Section | None:
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


def _detection(rows: Rows) -> Section | None:
    vote = rows.evaluation.vote
    if vote is None or not rows.votes:
        return None
    names = [f"tolerance vote, V = {votes}" for votes in sorted(rows.votes, reverse=True)]
    names += [f"noise vote, V = {max(rows.votes)}", _margin(rows)]
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
                figures.roc(rows.scored, names, _pushed(rows)[:2]),
                "In the convention of Carrara et al.: clean images accepted against attacked images accepted; up and left is "
                "better. s: how far the attacker pushed on.",
            ),
        ),
        (_detectors(rows),),
    )


def _work(rows: Rows) -> Section | None:
    about = rows.evaluation
    if not rows.solves or not rows.judged.filter(pl.col("experiment") == "clean").height:
        return None
    return Section(
        "What does a tolerance cost?",
        (),
        ((figures.work(rows.judged, about.net, about.tolerances), "Evaluations of the vector field per clean image."),),
        (tables.work(rows.judged, about.net, about.tolerances),),
    )


def _gallery(rows: Rows, count: int = 7) -> Section | None:
    about = rows.evaluation
    searched = [(trial, at) for trial, at in rows.everywhere() if at == about.tolerance]
    if not searched or not rows.votes:
        return None
    trial, at = searched[0]
    made = rows.made(trial.name, at=at).filter("success").head(count)
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
        data = DATASETS[about.data]("test")
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


def _doubts(rows: Rows) -> Section:
    return Section(
        "What should be doubted",
        (
            "A robustness number is worthless if the attack was weak. These are some of the usual signs of a weak attack, looked "
            "for in the rows. Red: the sign is there. Clear: it was looked for and not found. Not looked for: other attack "
            "seeds, attacks without gradients, several trained nets.",
        ),
        doubts=tuple((net, tuple(rows.doubts(net))) for net in rows.nets),
    )


def _provenance(rows: Rows, seconds: float | None) -> Section:
    about, nets = rows.evaluation, rows.crafted.unique("net", keep="first", maintain_order=True)
    row = rows.crafted.row(0, named=True) if rows.crafted.height else {}
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
            f"odefend {row.get('code_version', '')}, torch {torch.__version__}, Python {platform.python_version()}",
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
