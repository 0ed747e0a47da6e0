"""Checks: what should hold if attacks were as strong as their result needs them to be, asked of all rows of an experiment.

Every question is asked of every attacked model; what nobody looked for is unknown. Which attack stands beside which is read off
the rows: in the same ball or norm, on the same model, with twice the work, other gradients, or none.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import polars as pl

from odefend.metrics import signs
from odefend.metrics.attacked import Attacked, Ball, attacked_models, judging
from odefend.metrics.rows import Rows
from odefend.metrics.signs import DRAWS, GRADIENTS, MORE, NONE, OTHER_NET, Check, Frames, by_attack, not_tried

LEAST, MOST = 2, 8
"""How many times the work of another an attack must take, and may take at most, to say whether more work breaks more images."""


def checks(rows: Rows, names: Sequence[str] = ()) -> list[Check]:
    """Every check of every attacked model, in the order of `names`; what nobody asked is unknown."""
    models = attacked_models(rows, names)
    return [replace(one, model=model.name, where=model.where) for model in models for one in of_model(model)]


def of_model(model: Attacked) -> list[Check]:
    """The checks of one model. Those about balls stand where an attack was bounded by one, those about searches where one was run,
    and those about solvers and draws where there are some."""
    searches = model.crafted.filter(pl.col("epsilon").is_null())
    found = list(_searched(model, searches)) if searches.height else []
    for ball in model.balls:
        asked = _bounded(model, ball)
        found += asked if len(model.balls) == 1 else [_named(ball.norm, one) for one in asked]
    found.append(signs.gradients(model.crafted))
    if model.solves:
        found += [signs.solver_failures(model.judged, model.crafted), signs.coupling(model.crafted)]
    return found + (_random(model) if _draws(model) else [])


def _searched(model: Attacked, rows: pl.DataFrame) -> Iterator[Check]:
    """About searches for the smallest perturbation, each beside the others in its norm."""
    searches = by_attack(rows)
    for name, made in searches.items():
        norm = made["norm"].to_list()[0]
        others = {one: rows for one, rows in searches.items() if one != name and rows["norm"].to_list()[0] == norm}
        nearest = signs.nearer(made, others) if others else not_tried(signs.OTHER_SEARCH)
        found = (signs.converged(made), signs.minimal(judging(model.judged, made)), nearest)
        yield from (_named(name, one) if len(searches) > 1 else one for one in found)


def _named(name: str, check: Check) -> Check:
    return replace(check, statement=f"{name}: {check.statement[0].lower()}{check.statement[1:]}")


def _bounded(model: Attacked, ball: Ball) -> Iterator[Check]:
    """About attacks in balls of one norm; of several radii, `ball` is the one that must have been asked about."""
    inside = model.crafted.filter(pl.col("epsilon").is_not_null() & (pl.col("norm") == ball.norm))
    parts = sorted(inside.partition_by("epsilon", as_dict=True).items())
    radii = {float(str(radius)): by_attack(part) for (radius,), part in parts}
    curves = [
        {radius: frames[name] for radius, frames in radii.items() if name in frames} for name in by_attack(inside)
    ]
    yield signs.larger_radius([curve for curve in curves if len(curve) > 1])
    whole = [made for radius, frames in radii.items() if radius >= 1 for made in frames.values()]
    yield signs.unbounded(whole) if whole and ball.norm in ("linf", "rms") else not_tried(signs.UNBOUNDED)
    left = signs.broken(by_attack(model.inside(ball))).filter(~pl.col("broken")).height
    for statement in (MORE, *([GRADIENTS] if model.solves else []), OTHER_NET, NONE):
        if left:
            asked = {radius: sides(statement, frames) for radius, frames in radii.items()}
            yield signs.compared(statement, asked, ball.radius)
        else:
            yield Check(statement, f"every image is broken at radius {ball.radius:g}", "passed")


def sides(statement: str, frames: Frames) -> tuple[Frames, Frames]:
    """The attacks that a statement says break no more, and those that they are set beside; none where nobody asked."""
    if statement == DRAWS:
        averaged = {name: made["source_draws"].to_list()[0] or 1 for name, made in frames.items()}
        return _scaled(frames, averaged, 4, 64)
    kinds = _kinds(frames)
    own = {name: made for name, made in frames.items() if not kinds[name]}
    if statement == MORE:
        work = {name: int(str(made["gradient_calls"].max() or 0)) for name, made in own.items()}
        return _scaled(own, work, LEAST, MOST)
    there = {name: made for name, made in frames.items() if statement in kinds[name]}
    return there, {name: made for name, made in frames.items() if name not in there and NONE not in kinds[name]}


def _scaled(frames: Frames, sizes: Mapping[str, int], least: int, most: int) -> tuple[Frames, Frames]:
    """Those of `least` times the size of the largest of the others, which is at most `most` times smaller, and these."""
    top = max(sizes.values(), default=0)
    small = {name: size for name, size in sizes.items() if least * size <= top}
    if not small or most * max(small.values()) < top:
        return {}, {}
    large = [name for name in frames if sizes[name] >= least * max(small.values())]
    return {name: frames[name] for name in large}, {name: frames[name] for name in small}


def _kinds(frames: Frames) -> dict[str, set[str]]:
    """What each attack asks: none for one along the usual gradients of the net itself."""
    rows = {name: made.row(0, named=True) for name, made in frames.items()}
    how = {
        name: (row["source_rtol"], row["source_gradient"]) for name, row in rows.items() if row["source"] == row["net"]
    }
    usual = Counter(one for one in how.values() if one[0] == next(iter(rows.values()))["rtol"]).most_common(1)
    found: dict[str, set[str]] = {name: set() for name in frames}
    for name, row in rows.items():
        if not frames[name]["gradient_calls"].sum():
            found[name].add(NONE)
        elif row["source"] != row["net"]:
            found[name].add(OTHER_NET)
        elif usual and how[name] != usual[0][0]:
            found[name].add(GRADIENTS)
        elif row["algorithm"] == "AutoAttack" and (
            '"attacks":null' in row["settings"] or '"square"' in row["settings"]
        ):
            found[name].add(NONE)  # with Square as one of its parts
    return found


def _draws(model: Attacked) -> bool:
    """Whether a model draws at random, as far as the rows tell."""
    several = model.judged["draw"].max()
    return model.crafted["source_draws"].null_count() < model.crafted.height or bool(several)


def _random(model: Attacked) -> list[Check]:
    """About attacks on a model that draws at random."""
    draws = judging(model.judged, model.crafted)["draw"].n_unique()
    fresh = Check(signs.UNSEEN, f"{draws} of them", "passed") if draws else not_tried(signs.UNSEEN)
    inside = {ball.radius: by_attack(model.inside(ball)) for ball in model.balls[:1]}
    asked = {radius: sides(DRAWS, frames) for radius, frames in (inside or {None: by_attack(model.crafted)}).items()}
    return [fresh, signs.compared(DRAWS, asked, next(iter(asked)))]
