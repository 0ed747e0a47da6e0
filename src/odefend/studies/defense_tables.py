"""The tables and the figure of the study of the defenses, and how defenses are named in them."""

from collections.abc import Mapping
from typing import Any

from odefend.experiments import Cell, Column, FigurePart, Row, TablePart
from odefend.report.words import words

BARE = "none"
"""The net without a defense."""
SCALES = (1.0, 1.1, 1.25)
"""By which C&W's perturbations are multiplied."""
Points = Mapping[str, tuple[Mapping[str, Any], float | None]]
"""Defenses, each with its settings and the standard deviation of the noise that is set beside it."""
VOTED = ("random-tolerance", "input-noise")
"""Random defenses of which several draws are also averaged, and voted on."""
RIGHT = "accuracy under attack"


def noise(points: Points, sigma: float) -> str:
    """The name of noise of a level: that of the defense where it is its own."""
    own = points.get("input-noise", ({}, None))[0].get("sigma")
    return "input-noise" if sigma == own else f"input-noise, sigma {sigma:g}"


def votes_on(points: Points) -> dict[str, str]:
    """Averages of and votes on random defenses, and on the noise beside them, by what they take their draws of."""
    bases = [name for name in VOTED if name in points]
    bases += [noise(points, sigma) for name in bases if (sigma := points[name][1]) is not None]
    return {f"{base}, {how}": base for base in dict.fromkeys(bases) for how in ("averaged", "majority-vote")}


def beside(points: Points, votes: int) -> tuple[Row, ...]:
    """A row for the bare net and each defense, with the noise that it is set beside."""
    found = [Row(label=(BARE, "", ""), model=BARE)]
    for name, (settings, sigma) in points.items():
        some = {name: settings} | {
            vote: {**settings, "draws": votes} for vote, base in votes_on(points).items() if base == name
        }
        for model, told in some.items():
            partner = None if sigma is None else noise(points, sigma) + model.removeprefix(name)
            level = "" if sigma is None else f"sigma {sigma:g}"
            other = None if partner is None else Cell(model=partner)
            found.append(Row(label=(model, words(dict(told)), level), model=model, other=other))
    return tuple(found)


def ball_table(
    net: str, rows: tuple[Row, ...], in_ball: tuple[str, ...], adaptive: tuple[str, ...], note: str
) -> TablePart:
    """Accuracy, clean and under the attacks in the ball: all rows on the images that met all of them."""
    return TablePart(
        title=f"Accuracy of defenses of {net} in a ball",
        heads=("defense", "settings", "equal noise"),
        rows=rows,
        where=Cell(attack=in_ball, metric=RIGHT),
        same_images=True,
        columns=(
            Column(head="clean", metric="accuracy"),
            Column(head="PGD", attack="PGD"),
            Column(head="transferred", attack="PGD, transferred"),
            Column(head="adaptive", attack=adaptive),
            Column(head="all attacks"),
            Column(head="minus the bare net", minus=Cell(model=BARE)),
            Column(head="clean, noise", metric="accuracy", of="other"),
            Column(head="all attacks, noise", of="other"),
            Column(head="minus noise", minus="other"),
        ),
        note=note,
    )


def cw_table(net: str, rows: tuple[Row, ...], search: tuple[int, int]) -> TablePart:
    """Accuracy under C&W that does not know of a defense, scaled, and under C&W that knows it."""
    return TablePart(
        title=f"Accuracy of defenses of {net} under C&W",
        heads=("defense",),
        rows=tuple(row.model_copy(update={"label": row.label[0], "other": None}) for row in rows),
        where=Cell(metric=RIGHT, attack=("C&W", "C&W, adaptive")),
        columns=(
            *(Column(head=f"oblivious, s = {scale:g}", attack="C&W", scale=scale) for scale in SCALES),
            Column(head="adaptive", attack="C&W, adaptive", scale=1.0),
        ),
        note="Right, of {images}; of random defenses the mean over draws that no attack has seen. s: the "
        "perturbation is multiplied by this. Adaptive: along the mean of a few other draws of a random defense. The search "
        f"({search[0]} x {search[1]} steps) is not at its end, and stops where the draws that it follows are just fooled, so that "
        "others often are not: this is no bound on what an attacker in L2 can do.",
    )


def draws_table(net: str, rows: tuple[Row, ...], followed: tuple[int, int]) -> TablePart:
    """Whether attackers who follow a few draws of a random defense are weak for it."""
    few, many = (Cell(attack=f"PGD, {name} draws") for name in ("few", "many"))
    return TablePart(
        title=f"Whether more draws of {net}'s random defenses help an attacker",
        heads=("defense",),
        rows=tuple(
            row.model_copy(update={"label": row.label[0], "other": None})
            for row in rows
            if row.label[0].startswith(("random", "input-noise"))
        ),
        where=Cell(metric=RIGHT),
        same_images="row",
        columns=(
            Column(head=f"{followed[0]} draws", attack=few.attack),
            Column(head=f"{followed[1]} draws", attack=many.attack),
            Column(head="difference", attack=many.attack, minus=few),
        ),
        note="Right under PGD on cross-entropy along the mean of so many draws, of the images that met both, judged as above; "
        "difference: in points, paired. Where it is below 0, more draws yet may bring an attacker more.",
    )


def under_attack(net: str, rows: tuple[Row, ...], oblivious: tuple[str, ...], in_ball: tuple[str, ...]) -> FigurePart:
    """The same as a figure, on the same images."""
    return FigurePart(
        title=f"Accuracy of defenses of {net} under attack",
        kind="dots",
        y="right under attack",
        table=TablePart(
            title="",
            rows=tuple(row.model_copy(update={"label": row.label[0]}) for row in rows),
            where=Cell(attack=in_ball, metric=RIGHT),
            same_images=True,
            columns=(
                Column(head="oblivious attacks", attack=oblivious),
                Column(head="all attacks"),
                Column(head="all attacks, noise of equal dose", of="other"),
            ),
        ),
    )
