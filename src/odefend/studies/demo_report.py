"""The demo's report: what of the ledger goes where on the page, and the short table for the terminal."""

import json
import platform
from pathlib import Path

import numpy as np
import polars as pl
import torch

from odefend.data import DATASETS
from odefend.evaluation import Ledger
from odefend.evaluation import doubts as ask
from odefend.evaluation.detection import VOTES
from odefend.evaluation.doubts import Doubt
from odefend.evaluation.robustness import attacked
from odefend.report import Page, Section, Table, figures, findings, tables, write_page
from odefend.studies.demo import (
    ATTACKED_AT,
    EPSILON,
    EPSILONS,
    MATRIX,
    ODE,
    RANGE,
    RES,
    SCALES,
    TOLERANCES,
    VOTE_SCALES,
    sigmas,
    vote_sigma,
)

MARGIN = f"one-pass margin ({ODE})"


class Rows:
    """The ledger's tables, read once, and what the calibration rows say about noise."""

    def __init__(self, ledger: Ledger) -> None:
        self.crafted, self.judged, self.scored = (ledger.read(table) for table in ("crafted", "judged", "scored"))
        self.sigmas, self.vote_sigma = sigmas(ledger), vote_sigma(ledger)
        self.votes = [votes for votes in VOTES if f"tolerance vote, V = {votes}" in self.scored["detector"]]
        self.ledger = ledger

    def made(self, experiment: str, net: str = ODE, epsilon: float | None = None) -> pl.DataFrame:
        """Crafted rows of an experiment on a net, at one radius if given."""
        rows = self.crafted.filter((pl.col("experiment") == experiment) & (pl.col("net") == net))
        return rows if epsilon is None else rows.filter(pl.col("epsilon") == epsilon)


def doubts(rows: Rows, net: str) -> list[Doubt]:
    """Everything that the rows can be asked about the attacks on a net."""
    white = rows.made("epsilon curve", net, EPSILON)
    recovery = rows.judged.filter((pl.col("experiment") == "recovery") & (pl.col("net") == net))
    everything = rows.crafted.filter(pl.col("net") == net)
    found = [
        ask.converged(rows.made("minimum norm", net)),
        ask.slack(recovery.filter(pl.col("defense") == "tolerance")),
        ask.more_steps(white, rows.made("twice the steps", net)),
        ask.larger_epsilon({epsilon: rows.made("epsilon curve", net, epsilon) for epsilon in EPSILONS}),
        ask.unbounded(rows.made("epsilon curve", net, max(EPSILONS))),
        ask.gradients(everything),
    ]
    if net == ODE:
        loose, at = rows.made("loose, unrolled gradients"), f"PGD at tolerance {MATRIX[1]:g}"
        found += [
            ask.transfer(loose, rows.made("loose, exact gradients"), "exact gradients", at),
            ask.transfer(loose, rows.made("loose, tight gradients"), "gradients of the solve at 1e-05", at),
            ask.transfer(
                white,
                rows.made("tight gradients"),
                "gradients of the solve at 1e-05",
                f"PGD at tolerance {ATTACKED_AT:g}",
            ),
            ask.transfer(white, rows.made("exact gradients"), "exact gradients", f"PGD at tolerance {ATTACKED_AT:g}"),
            ask.transfer(
                white, rows.made("gradients of the ResNet"), f"gradients of {RES}", f"PGD at tolerance {ATTACKED_AT:g}"
            ),
            ask.solver_failures(rows.judged.filter(pl.col("net") == net)),
        ]
    return found


def summary(rows: Rows) -> tuple[Table, ...]:
    """What the terminal shows."""
    return (
        tables.nets(rows.crafted, rows.judged, (ODE, RES), ATTACKED_AT, EPSILON),
        tables.recovery(rows.judged, ODE, TOLERANCES, rows.sigmas, ATTACKED_AT),
        tables.matrix(rows.crafted, rows.judged, MATRIX, ODE, EPSILON),
        _detectors(rows),
    )


def _detectors(rows: Rows) -> Table:
    names = [f"{kind} vote, V = {votes}" for kind in ("tolerance", "noise") for votes in rows.votes]
    return tables.detectors(rows.scored, [*names, MARGIN], VOTE_SCALES)


def lessons(rows: Rows) -> tuple[str, ...]:
    """The findings, in the order of the argument."""
    most = max(rows.votes)
    return (
        findings.verdict(doubts(rows, ODE), rows.crafted, ODE, EPSILON, rows.judged, MATRIX),
        findings.undefended(rows.crafted, ODE, RES),
        findings.against_noise(rows.judged, ODE, rows.sigmas),
        findings.numerical_error(rows.judged, ODE, ATTACKED_AT, *TOLERANCES[:2]),
        findings.pushing_on(rows.judged, ODE, rows.sigmas),
        findings.best_response(rows.crafted, rows.judged, MATRIX, ODE, EPSILON),
        findings.detecting(rows.scored, f"tolerance vote, V = {most}", f"noise vote, V = {most}", MARGIN, (1.0, 1.1)),
        findings.clean_cost(rows.judged, ODE, TOLERANCES),
    )


def page(rows: Rows, seconds: float | None = None) -> Page:
    """The whole report."""
    images = rows.made("minimum norm").height
    return Page(
        "Does the solver's tolerance protect a Neural-ODE classifier?",
        f"Two small classifiers of handwritten digits, {ODE} (a Neural ODE) and {RES} (the same net with one residual block "
        f"in the ODE's place), attacked on {images} test images that neither was trained on. Every number is read off the "
        "ledger beside this page; brackets hold 95 % confidence intervals over images, which are wide for so few; they do not "
        "cover other training runs or "
        "attack seeds.",
        lessons(rows),
        (
            _threat(rows),
            _nets(rows),
            _recovery(rows),
            _matrix(rows),
            _detection(rows),
            _work(rows),
            _gallery(rows),
            _doubts(rows),
            _provenance(rows, seconds),
        ),
    )


def _threat(rows: Rows) -> Section:
    search, ball = (
        rows.made("minimum norm").row(0, named=True),
        rows.made("epsilon curve", ODE, EPSILON).row(0, named=True),
    )
    broken = attacked(rows.made("minimum norm")).filter("success")["history"]
    course = [f"{np.median(broken.list.get(step).to_numpy()):.3f}" for step in range(int(broken.list.len().min() or 0))]  # type: ignore[arg-type]
    calls = attacked(rows.made("minimum norm"))["gradient_calls"].mean()
    return Section(
        "Who attacks, and how",
        (
            "The attacker has the net and its weights and may change every pixel. Pixels are in [0, 1]. Attacks are "
            "untargeted. Images that the net gets wrong unattacked are left out of every success rate.",
            "C&W (Carlini-Wagner) looks for the smallest change, in L2 norm (root of the sum of squares over pixels); PGD "
            "(projected gradient descent on the cross-entropy) for any change within a given largest change per pixel (L-inf).",
            "Knowledge: both know the tolerance they attack, and follow the net's gradients. They know nothing of another "
            "tolerance used for judging, of random tolerances, or of a detector. Beside them stand PGD attackers who know the "
            "tested tolerance (the matrix below), and one who pushes the found perturbation further (the s-curve). C&W was "
            "run at one tolerance only, and no attacker here averages over random tolerances or has the detector in the loss: "
            "against such ones, what is won back and what is detected can only be less.",
            f"Convergence of C&W on {ODE}: over the images it broke in the end, the median L2 norm after each round of its "
            f"search was {', '.join(course)} (inf: not broken yet). It used {calls:.0f} gradients per image on average, and "
            f"began with c = {json.loads(search['settings'])['initial_constant']:g} where the papers began with 0.01.",
        ),
        facts=(
            ("C&W", f"{_plainly(search['settings'])}; on {ODE} at tolerance {search['rtol']:g}, and on {RES}"),
            (
                "PGD",
                f"{_plainly(ball['settings'])}; {ball['norm']}, random start, seed {ball['seed']}, default step size "
                "(2.5 epsilon / steps); for the matrix without early stop, for the curve at other epsilon",
            ),
            (
                "gradients",
                f"{search['gradient']}: back through the accepted solver steps, their sizes held constant; PGD was "
                f"run with exact gradients as well, at tolerances {ATTACKED_AT:g} and {MATRIX[1]:g} (see the doubts)",
            ),
            (
                "solver",
                f"{search['method']} with rtol = atol = tolerance, one step size per image, end of the interval by "
                f"{search['end']}, {search['precision']}, at most {search['max_steps']} steps",
            ),
        ),
    )


def _plainly(settings: str) -> str:
    """Settings as a reader would write them."""
    values = {key.replace("_", " "): value for key, value in json.loads(settings).items() if value is not None}
    return ", ".join(
        f"{key} {'yes' if value is True else 'no' if value is False else value}" for key, value in values.items()
    )


def _nets(rows: Rows) -> Section:
    return Section(
        "The nets without a defense",
        (
            "The ResNet is the control for the attacks: what it shows as well is not owed to the ODE. It has no tolerance, "
            "so it is none for what a tolerance wins back.",
        ),
        (
            (
                figures.epsilon_curve(rows.crafted, (ODE, RES)),
                "Share of rightly classified images that PGD breaks, by its radius. At radius 1 the ball holds every "
                "image, so anything below 100 % would be a failure of the attack.",
            ),
        ),
        (tables.nets(rows.crafted, rows.judged, (ODE, RES), ATTACKED_AT, EPSILON),),
    )


def _recovery(rows: Rows) -> Section:
    return Section(
        "Does another tolerance undo an attack?",
        (
            "The papers observe that an image attacked at one tolerance is often classified rightly at another. A minimum-norm "
            "attack aims at the decision boundary, where any change may tip an image back. Two controls tell whether that is all: "
            "input noise that changes clean images as much, and an attacker who goes on past the boundary. "
            + _boundary(rows),
        ),
        (
            (
                figures.accuracy_by_tolerance(rows.judged, ODE, TOLERANCES, rows.sigmas, ATTACKED_AT),
                "Where the blue and the orange band overlap, these images cannot tell the tolerance from noise of its dose. The "
                "violet curve is the blue one after the attacker pushed 10 % further.",
            ),
            (
                figures.pushed(rows.judged, ODE, TOLERANCES, SCALES, ATTACKED_AT),
                "The s-curve: what each tolerance wins back as the perturbation is multiplied by s (intervals are in the "
                "table). The noise is the strongest of those matched to a tolerance.",
            ),
        ),
        (tables.recovery(rows.judged, ODE, TOLERANCES, rows.sigmas, ATTACKED_AT),),
    )


def _boundary(rows: Rows) -> str:
    """How near the boundary the attack came, on both nets."""
    found = rows.judged.filter(
        (pl.col("experiment") == "recovery") & pl.col("attack_success") & (pl.col("scale") == 1.0)
    )
    found = found.filter(
        (pl.col("defense") == "tolerance") & (pl.col("rtol").is_null() | (pl.col("rtol") == ATTACKED_AT))
    )
    if not found.height:
        return "It broke no image here."
    medians = {net: part["true_margin"].median() for (net,), part in found.group_by("net", maintain_order=True)}
    return (
        "The median margin of the true class where it ended: "
        + ", ".join(f"{m:.2f} on {n}" for n, m in medians.items())
        + "."
    )


def _matrix(rows: Rows) -> Section:
    return Section(
        "What does an attacker do who knows the tested tolerance?",
        (
            "Such an attacker attacks at the tolerance that will be used, or at whichever works best against it: the worst "
            "number of a column. "
            "Off the diagonal stand the mismatched attacks on which a defense by tolerance is usually judged.",
        ),
        (
            (
                figures.heat(rows.crafted, rows.judged, MATRIX),
                f"Accuracy under PGD, L-inf {EPSILON:g}, on images that were right at the attacked tolerance.",
            ),
        ),
        (tables.matrix(rows.crafted, rows.judged, MATRIX, ODE, EPSILON),),
    )


def _detection(rows: Rows) -> Section:
    names = [f"tolerance vote, V = {votes}" for votes in sorted(rows.votes, reverse=True)]
    names += [f"noise vote, V = {max(rows.votes)}", MARGIN]
    return Section(
        "Does a vote over tolerances reveal attacked images?",
        (
            f"Each image is solved at V tolerances drawn log-uniformly from [{RANGE.low:g}, {RANGE.high:g}], and accepted if the "
            "largest agreeing group has at least v_min votes; v_min draws the curve. Beside it stand the controls: as many passes "
            f"under noise of the same dose (sigma {rows.vote_sigma:.4f}), and the gap between the two largest logits of a single "
            "pass.",
        ),
        (
            (
                figures.roc(rows.scored, names, (1.0, 1.1)),
                "In the convention of the paper: clean images accepted against attacked images accepted; up and left is better. "
                "Right: after the attacker pushed 10 % further.",
            ),
        ),
        (_detectors(rows),),
    )


def _work(rows: Rows) -> Section:
    return Section(
        "What does a tolerance cost?",
        (),
        ((figures.work(rows.judged, ODE, TOLERANCES), "Evaluations of the vector field per clean image."),),
        (tables.work(rows.judged, ODE, TOLERANCES),),
    )


def _gallery(rows: Rows, count: int = 7) -> Section:
    made = rows.made("minimum norm").filter("success").head(count)
    ballots = rows.judged.filter(
        (pl.col("experiment") == "tolerance vote") & (pl.col("scale") == 1.0) & (pl.col("kind") == "adversarial")
    )
    once = rows.judged.filter(
        (pl.col("experiment") == "recovery")
        & (pl.col("rtol") == ATTACKED_AT)
        & (pl.col("scale") == 1.0)
        & (pl.col("defense") == "tolerance")
    )
    data = DATASETS["digits"]("test")
    clean = {name: data.images[i, 0].numpy() for i, name in enumerate(data.ids)}
    pictures = []
    for row in made.iter_rows(named=True):
        adversarial = rows.ledger.read_images(row["key"])[row["position"], 0].numpy()
        votes = np.bincount(ballots.filter(pl.col("image") == row["image"])["prediction"].to_numpy(), minlength=10)
        says = once.filter(pl.col("image") == row["image"])["prediction"].item()
        pictures.append((clean[row["image"]], adversarial, str(row["label"]), f"taken for {says}", votes))
    if not pictures:
        return Section("Gallery", ("No image was broken.",))
    return Section(
        "Gallery",
        (),
        (
            (
                figures.gallery(pictures),
                "The first images that C&W broke: the original with its label, the adversarial image with what the net "
                "says of it, their difference (red brighter, blue darker; the largest change of a pixel is given), and "
                f"how {int(pictures[0][4].sum())} solves at random tolerances vote (green: the true class).",
            ),
        ),
    )


def _doubts(rows: Rows) -> Section:
    return Section(
        "What should be doubted",
        (
            "A robustness number is worthless if the attack was weak. These are some of the usual signs of a weak attack, looked "
            "for in the rows. Red: the sign is there. Clear: it was looked for and not found. Not looked for in this demo: "
            "restarts and other seeds, exact gradients in C&W, attacks without gradients, several trained nets.",
        ),
        doubts=tuple((net, tuple(doubts(rows, net))) for net in (ODE, RES)),
    )


def _provenance(rows: Rows, seconds: float | None) -> Section:
    row, res = rows.made("minimum norm").row(0, named=True), rows.made("minimum norm", RES).row(0, named=True)
    return Section(
        "Where these numbers come from",
        (
            "The folder of this page holds the ledger: crafted, judged and scored rows in Parquet, and every adversarial image.",
        ),
        facts=(
            (
                "nets",
                f"{ODE}, weights {row['net_digest']}, training seed {row['training_seed']}; {RES}, weights "
                f"{res['net_digest']}, training seed {res['training_seed']}",
            ),
            (
                "images",
                "scikit-learn's digits (8x8 pixels, 0 to 1), test split; doses and noise from the calibration split",
            ),
            ("rows", f"{rows.crafted.height} crafted, {rows.judged.height} judged, {rows.scored.height} scored"),
            (
                "report by",
                f"odefend {row['code_version']}, torch {torch.__version__}, Python {platform.python_version()}",
            ),
            *((("time", f"{seconds:.0f} s in the last run"),) if seconds is not None else ()),
            ("again", "odefend demo --out FOLDER"),
        ),
    )


def write(ledger: Ledger, path: Path, seconds: float | None = None) -> Rows:
    """Read the rows and write the page; returns the rows."""
    rows = Rows(ledger)
    write_page(page(rows, seconds), path)
    return rows
