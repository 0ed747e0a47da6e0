"""The table of a tuning, from its record."""

from collections.abc import Sequence
from typing import Any

from odefend.intervals import Interval
from odefend.report.table import Table
from odefend.report.words import words


def evidence(told: dict[str, Any]) -> Table:
    """What came of each candidate; `told`: what `evaluation.tuning.record` gives, read back from a file or not."""
    chosen, images = told["chosen"], told["images"]
    cells = tuple(
        (
            ("-> " if chosen == one["defense"] else "") + words(one["defense"]["settings"]),
            Interval(**one["clean"]).percent,
            Interval(**one["lost"]).percent,
            Interval(**one["won"]).percent,
            f"{100 * one['noise_won']:.1f} % (sigma {one['sigma']:.2g})",
            _robust(one),
        )
        for one in told["tried"]
    )
    names = {one["defense"]["name"] for one in told["tried"]}
    point = f"Chosen: {words(chosen['settings']) or 'as it is'}" if chosen else "None is chosen: each costs too much"
    return Table(
        f"{', '.join(sorted(names))} of {told['net']}, tuned on the {told['split']} split of {told['data']}",
        (
            "settings",
            "clean accuracy",
            "lost by it",
            "won back",
            "won back by equal noise",
            "right under adaptive attacks",
        ),
        cells,
        f"{point}. It may lose {100 * told['loss']:g} % of clean images, and is the most robust of those that do not lose more. "
        f"{images['clean']} clean images; won back: of those that {told['attack']['attack']}, which knows nothing of it, broke "
        f"among {images['attacked']}, beside noise of the same dose on clean margins. {_adaptive(told)}",
    )


def operating_points(told: Sequence[dict[str, Any]]) -> Table:
    """The settings chosen for several defenses of a net, or of one whose settings all cost too much those that cost least."""
    cells = []
    for one in told:
        chosen = one["chosen"]
        least = min(one["tried"], key=lambda tried: tried["lost"]["value"])
        point = next((tried for tried in one["tried"] if chosen == tried["defense"]), least)
        cells.append(
            (
                point["defense"]["name"],
                words(point["defense"]["settings"]) + ("" if chosen else " (costs too much)"),
                str(len(one["tried"])),
                Interval(**point["lost"]).percent,
                Interval(**point["won"]).percent,
                f"{100 * point['noise_won']:.1f} % (sigma {point['sigma']:.2g})",
                _robust(point),
            )
        )
    first = told[0]
    return Table(
        f"Operating points of {first['net']}",
        (
            *("defense", "settings", "of so many tried", "clean accuracy lost", "won back", "won back by equal noise"),
            "right under adaptive attacks",
        ),
        tuple(cells),
        f"Chosen on {first['images']['clean']} images of the {first['split']} split, to lose no more than "
        f"{100 * first['loss']:g} % of clean images and {_goal(first)}; won back: of those that {first['attack']['attack']}, which "
        f"knows nothing of it, broke among {first['images']['attacked']}, beside noise of the same dose on clean margins."
        f"{' ' + _adaptive(first) if 'adaptive' in first else ''}",
    )


def _goal(told: dict[str, Any]) -> str:
    """What settings were chosen for: records of before adaptive attacks decided have none of them."""
    if "adaptive" in told:
        return "to be right most often under adaptive attacks"
    return "to win most back from an attack that knows nothing of them, which says little of what one does who knows"


def _adaptive(told: dict[str, Any]) -> str:
    """The adaptive attacks."""
    how = told["adaptive"]
    return (
        f"Adaptive: PGD of {how['steps']} steps in an L-inf ball of {how['epsilon']:g}, knowing the settings, on "
        f"{told['images']['answered']} images, along up to {how['many']} draws of a random defense, judged under {how['draws']} "
        "others; the attack on each image is the worst under other draws than the one that judges it."
    )


def _robust(one: dict[str, Any]) -> str:
    return Interval(**one["robust"]).percent if one.get("robust") else "not measured"
