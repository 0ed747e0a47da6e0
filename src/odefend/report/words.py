"""Settings in a few words."""

from typing import Any


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
