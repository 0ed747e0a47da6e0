"""The table of a tuning, from its record."""

from typing import Any

from odefend.intervals import Interval
from odefend.report import Table


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
