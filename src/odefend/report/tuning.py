"""The table of a tuning, from its record."""

from collections.abc import Sequence
from typing import Any

from odefend.intervals import Interval
from odefend.report.table import Table


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
            _response(one),
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
            "best response",
        ),
        cells,
        f"{point}. It may lose {100 * told['loss']:g} % of clean images. {images['clean']} clean images; won back: of those that "
        f"{told['attack']['attack']}, which knows nothing of it, broke among {images['attacked']}; best response: "
        f"{told['response']['attack']}, knowing the settings, on {images['answered']}: the share that stands it, or of an attack "
        "of smallest norm the median L2 at which it fools most draws, as a multiple of the bare net's. Equal noise: of the same "
        "dose on clean margins.",
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
            )
        )
    first = told[0]
    return Table(
        f"Operating points of {first['net']}",
        ("defense", "settings", "of so many tried", "clean accuracy lost", "won back", "won back by equal noise"),
        tuple(cells),
        f"Chosen on {first['images']['clean']} images of the {first['split']} split, to lose no more than "
        f"{100 * first['loss']:g} % of clean images; won back: of those that {first['attack']['attack']}, which knows nothing of "
        f"it, broke among {first['images']['attacked']}. Equal noise: of the same dose on clean margins.",
    )


def _response(one: dict[str, Any]) -> str:
    if one["withstood"]:
        return f"{Interval(**one['withstood']).percent} stand it"
    return "not asked" if one["distance"] is None else f"{float(one['distance']):.2f} times as far"


def words(settings: dict[str, Any]) -> str:
    """Settings in a few words, as in "sigma 0.1"."""
    return ", ".join(_words(settings))


def _words(settings: dict[str, Any]) -> list[str]:
    found = []
    for key, value in settings.items():
        if isinstance(value, dict):
            found += _words(value)
        elif key != "name":
            found.append(f"{key} {value:g}" if isinstance(value, float | int) else f"{value}")
    return found
