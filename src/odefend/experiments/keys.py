"""What an experiment's file may say: every key, with its type and meaning."""

from collections.abc import Iterator
from typing import Any, get_args

from odefend.experiments.parts import Experiment, Part


def keys(part: type[Part] = Experiment, place: str = "") -> Iterator[tuple[str, str, str]]:
    """(place of the key, as in models.NAME.tolerance; its default; what it means), those of parts after the part that has them."""
    inner = []
    for name, field in part.model_fields.items():
        at = f"{place}{name}"
        default = "" if field.is_required() else _shown(field.get_default(call_default_factory=True))
        yield at, default, field.description or ""
        within = _part(field.annotation)
        if within is not None and within is not part:
            several = "mapping" in str(field.annotation).lower()
            inner.append((within, f"{at}.NAME." if several else f"{at}."))
    for within, at in inner:
        yield from keys(within, at)


def _part(kind: Any) -> type[Part] | None:
    if isinstance(kind, type) and issubclass(kind, Part):
        return kind
    return next((found for one in get_args(kind) if (found := _part(one))), None)


def _shown(value: Any) -> str:
    return "" if value is None or value in ((), {}, "") or isinstance(value, Part) else str(value)
