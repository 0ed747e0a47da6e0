"""Settings of defenses that are worth trying by themselves."""

from collections.abc import Mapping
from typing import Any

from odefend.errors import unknown
from odefend.models import Classifier, ODENet

CANDIDATES: Mapping[str, tuple[dict[str, Any], ...]] = {
    "tolerance": tuple({"tolerance": value} for value in (1e-5, 1e-2, 1e-1, 1.0, 10.0)),
    "random-tolerance": tuple(
        {"distribution": {"low": low, "high": high}} for low, high in ((1e-5, 1e-1), (1e-4, 1.0), (1e-3, 10.0))
    ),
    "end-time": tuple({"t1": end} for end in (0.8, 0.9, 1.1, 1.25, 1.5)),
    "random-end-time": tuple({"low": low, "high": high} for low, high in ((0.9, 1.1), (0.75, 1.25), (0.5, 1.5))),
    "input-noise": tuple({"sigma": sigma} for sigma in (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)),
    "input-transform": tuple({"tampering": name} for name in ("jpeg-90-444", "jpeg-75-444", "jpeg-50-444", "median-3")),
    "bit-depth": tuple({"bits": bits} for bits in (1, 2, 3, 4)),
    "purification": ({},),
}
"""Settings that are tried by themselves, by the defense's name; end times as parts of the net's own."""


def candidates(name: str, net: Classifier) -> tuple[dict[str, Any], ...]:
    """The settings of a defense that are tried on a net. Raises UnknownName for a defense that has none."""
    if name not in CANDIDATES:
        raise unknown("defense to tune", name, CANDIDATES)
    if name.endswith("end-time") and isinstance(net, ODENet) and isinstance(end := net.settings.t1, float):
        return tuple({key: part * end for key, part in settings.items()} for settings in CANDIDATES[name])
    return CANDIDATES[name]
