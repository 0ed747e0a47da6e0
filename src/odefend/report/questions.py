"""What is asked of an evaluation's rows about the attacks on a net: every question, also those that nobody asked, whose answer is
unknown. Questions about balls stand where something is said of a ball, and those about searches where one was run."""

from collections.abc import Sequence
from itertools import product

import polars as pl

from odefend.attacks import AutoAttack
from odefend.evaluation import doubts as ask
from odefend.evaluation.doubts import Doubt
from odefend.evaluation.spec import Trial
from odefend.report.rows import Rows

MORE, GRADIENTS, OTHER_NET, NONE = (
    "an attack of at least twice the work",
    "an attack along other gradients of the same net",
    "an attack along another net's gradients",
    "an attack without gradients",
)


def doubts(rows: Rows, net: str) -> list[Doubt]:
    """All questions about the attacks on a net, with what its rows answer."""
    made, judged = (table.filter(pl.col("net") == net) for table in (rows.crafted, rows.judged))
    found = [doubt for trial in rows.trials("minimum norm") for doubt in _of_search(rows, trial, net)]
    searched = bool(found)
    found += [doubt for trial in rows.trials("epsilon curve") for doubt in _of_curve(rows, trial, net)]
    beside = [(trial, doubt) for trial in rows.trials("beside") for doubt in _beside(rows, trial, net)]
    found += [doubt for _, doubt in beside]
    if made["epsilon"].null_count() < made.height:
        found += _not_asked_of_balls(rows, net, {doubt.question.split(": ")[-1] for doubt in found})
    if searched and not any(not trial.epsilon for trial, _ in beside):
        found.append(ask.not_tried("Does another search come nearer?"))
    found.append(ask.gradients(made.unique(["key", "image"], maintain_order=True)))
    if made["rtol"].null_count() < made.height:
        found.append(ask.solver_failures(judged, made))
    return found


def _of_search(rows: Rows, trial: Trial, net: str) -> list[Doubt]:
    """About a search for the smallest change, at each tolerance it attacked."""
    found = []
    for at in _tolerances(rows, trial, net):
        made = rows.made(trial.name, net, at=at)
        pulled = rows.judged.filter(
            (pl.col("experiment") == "recovery")
            & (pl.col("net") == net)
            & (pl.col("trial") == trial.name)
            & (pl.col("defense") == "tolerance")
            & pl.col("attacked_at").eq_missing(at)
            & pl.col("rtol").eq_missing(at)
        )
        if made.height:
            found += [_named(rows, trial, at, doubt) for doubt in (ask.converged(made), ask.slack(pulled))]
    return found


def _of_curve(rows: Rows, trial: Trial, net: str) -> list[Doubt]:
    """About an attack of several radii, at each tolerance it attacked."""
    found, largest = list[Doubt](), max(trial.epsilon)
    for at in _tolerances(rows, trial, net) if len(trial.epsilon) > 1 else ():
        curve = {epsilon: rows.made(trial.name, net, epsilon, at) for epsilon in trial.epsilon}
        if not curve[largest].height:
            continue
        asked = [ask.larger_epsilon(curve)]
        if largest >= 1 and trial.made()[0].norm_name in ("linf", "rms"):  # then the ball holds every image
            asked.append(ask.unbounded(curve[largest]))
        found += [_named(rows, trial, at, doubt) for doubt in asked]
    return found


def _beside(rows: Rows, trial: Trial, net: str) -> list[Doubt]:
    """About an attack that stands beside another, at each radius and tolerance."""
    own = rows.evaluation.trial(str(trial.beside))
    found = []
    for epsilon, at in product(trial.epsilon or (None,), _tolerances(rows, trial, net)):
        other, base = (rows.made(one.name, net, epsilon, at) for one in (trial, own))
        if other.height and base.height:
            radius = f" of radius {epsilon:g}" if epsilon is not None and len(trial.epsilon) > 1 else ""
            found.append(ask.transfer(base, other, trial.name, _place(own, at, radius)))
    return found


def _not_asked_of_balls(rows: Rows, net: str, asked: set[str]) -> list[Doubt]:
    """What nobody asked about attacks in balls: anywhere, or of the radius that sentences are about at each tolerance they name."""
    curves = ("Does a larger epsilon ever help less?", "Does an unbounded attack break every image?")
    found = [ask.not_tried(one) for one in curves if one[0].lower() + one[1:] not in asked]
    tried = {(kind, at) for trial in rows.trials("beside") for kind, at in _kinds(rows, trial, net)}
    solves = rows.crafted.filter(pl.col("net") == net)["rtol"].null_count() == 0
    for kind in (MORE, *([GRADIENTS] if solves else []), OTHER_NET, NONE):
        missing = [at for at in (rows.grid if solves else (None,)) if (kind, at) not in tried]
        where = ", ".join(f"{at:g}" for at in missing if at is not None)
        if missing:
            found.append(
                ask.not_tried(f"Does {kind} break images that these do not{where and ' at tolerance ' + where}?")
            )
    return found


def _kinds(rows: Rows, trial: Trial, net: str) -> set[tuple[str, float | None]]:
    """What an attack that stands beside another asks of it, and at which tolerances: of the radius and the norm that sentences are
    about, if there is one."""
    own, radius = rows.evaluation.trial(str(trial.beside)), rows.evaluation.epsilon
    made = rows.made(trial.name, net, radius)
    if radius is not None:
        made = made.join(rows.balls.select("key").unique(), on="key", how="semi")
    if not made.height:
        return set()
    attack, kinds = trial.made()[0], set()
    square = isinstance(attack, AutoAttack) and "square" in (attack.attacks or ("square",))
    if square or not made["gradient_calls"].sum():
        kinds.add(NONE)
    if trial.source is not None and trial.source.net not in (None, net):
        kinds.add(OTHER_NET)
    elif (trial.source, trial.gradient) != (own.source, own.gradient):
        kinds.add(GRADIENTS)
    elif attack.cost >= 2 * own.made()[0].cost:
        kinds.add(MORE)
    return set(product(kinds, made["rtol"].unique().to_list()))


def _tolerances(rows: Rows, trial: Trial, net: str) -> Sequence[float | None]:
    if rows.crafted.filter(pl.col("net") == net)["rtol"].null_count():
        return (None,)
    return rows.evaluation.attacked_at(trial)


def _place(trial: Trial, at: float | None, radius: str = "") -> str:
    return trial.name + radius + ("" if at is None else f" at tolerance {at:g}")


def _named(rows: Rows, trial: Trial, at: float | None, doubt: Doubt) -> Doubt:
    name = _place(trial, at if len(rows.evaluation.attacked_at(trial)) > 1 else None)
    return Doubt(f"{name}: {doubt.question[0].lower()}{doubt.question[1:]}", doubt.finding, doubt.verdict)
