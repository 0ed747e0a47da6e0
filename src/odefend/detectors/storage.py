"""Detectors in files: what they learned and how they were calibrated, as safetensors. Nothing is ever unpickled."""

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Json, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from odefend.detectors.base import Detector
from odefend.detectors.calibrate import Calibrated
from odefend.detectors.families import DETECTORS, detector_class
from odefend.errors import CheckpointError, InvalidInput, unknown
from odefend.files import write_bytes
from odefend.models import Classifier, Solving, cards, load, solving, weights_digest
from odefend.seal import BLANK, is_intact, sealed

FORMAT = "3"
LARGEST = 1 << 22
"""Numbers in an image that a detector is asked about to see whether what it learned fits it."""

OF_CALIBRATION, OF_DETECTOR = "calibration.", "learned."


class About(BaseModel):
    """What a detector's file says beside its tensors."""

    model_config = ConfigDict(extra="forbid")
    odefend: str  # the checksum of the file
    format: Literal["3"]
    detector: str
    settings: Json[dict[str, Any]]
    net: str
    solved: Json[dict[str, Any]]
    name: str
    beside: Json[dict[str, str]]


def named_detector(name: str, net: Classifier, settings: dict[str, Any] | None = None) -> Detector:
    """A detector by its name, beside a net, with some of its settings.

    Raises UnknownName for an unknown detector or setting, with the nearest, and InvalidInput for a value of the wrong type or
    out of range.
    """
    kind = detector_class(name)
    if kind.of_solver:
        solving(net, name)
    types = setting_types(kind)
    wanted = {}
    for key, value in (settings or {}).items():
        if key not in types:
            raise unknown(f"setting of {name}", key, types)
        try:
            wanted[key] = TypeAdapter(types[key]).validate_python(value)
        except ValidationError as error:
            raise InvalidInput(f"{key}: {error.errors()[0]['msg'].lower()}; got {value!r}.") from error
    return kind(net, **wanted)  # type: ignore[call-arg]


def settings_of(detector: Detector) -> dict[str, Any]:
    """A detector's settings, as JSON can hold them."""
    return {
        name: TypeAdapter(kind).dump_python(getattr(detector, name), mode="json")
        for name, kind in setting_types(type(detector)).items()
    }


def setting_types(kind: type[Detector]) -> dict[str, Any]:
    """The settings of a kind of detector by name, with their types."""
    return {field.name: field.type for field in fields(kind) if field.name != "net"}  # type: ignore[arg-type]


def save_detector(detector: Detector | Calibrated, path: Path) -> Path:
    """Write a detector, calibrated or not, to `path`, or `path`.safetensors where it has no such ending, atomically; returns
    where it is.

    The net and the models beside it are not in the file, but their names and digests of their weights: see `load_detector`.
    Raises InvalidInput for a net with a tolerance or end time for each image, and for a detector that is not one of DETECTORS.
    """
    bare = detector.detector if isinstance(detector, Calibrated) else detector
    names = [name for name, kind in DETECTORS.items() if type(bare) is kind]
    if not names:
        raise InvalidInput(
            f"detector: expected one of odefend.DETECTORS, got {type(bare).__name__}. Of a Fused one, save the members."
        )
    tensors = {OF_DETECTOR + name: value.cpu().contiguous() for name, value in (bare.learned or {}).items()}
    if isinstance(detector, Calibrated):
        tensors |= {OF_CALIBRATION + name: value.cpu().contiguous() for name, value in detector.state().items()}
    about = {
        "odefend": BLANK,
        "format": FORMAT,
        "detector": names[0],
        "settings": json.dumps(settings_of(bare)),
        "net": weights_digest(bare.net),
        "solved": json.dumps(_solved(bare.net)),
        "name": bare.net.card.name if bare.net.card else "",
        "beside": json.dumps(_digests(bare)),
    }
    path = _file(path)
    write_bytes(path, sealed(safetensors.torch.save(tensors, metadata=about)))
    return path


def load_detector(path: Path, net: Classifier | str | None = None) -> Detector | Calibrated:
    """The detector in a file, beside the net it was saved with: by default that of the zoo, by name that one of the zoo or
    of a file; at the tolerance that it had then.

    Raises CheckpointError for a file that is missing, damaged or of another net.
    """
    path = _file(path)
    about, tensors = _read(path)
    if net is None and about.name not in cards():
        raise CheckpointError(f"{path}: was fitted beside a net that is none of the zoo. Say which it is.")
    beside = net if isinstance(net, Classifier) else load(net or about.name)
    if about.net != weights_digest(beside):
        raise CheckpointError(f"{path}: expected the net it was fitted beside, got one of other weights.")
    try:
        net = beside if beside is net else _solved_so(beside, about.solved)
        _check_solved(path, net, about.solved)
        detector = named_detector(about.detector, net, about.settings)
        if about.beside != (now := _digests(detector)):
            raise CheckpointError(
                f"{path}: expected models of images with the digests {about.beside} beside it, found {now}."
            )
        detector.learned = _part(tensors, OF_DETECTOR) or None
        _check_learned(detector)
        calibration = _part(tensors, OF_CALIBRATION)
        return Calibrated.restored(detector, calibration) if calibration else detector
    except CheckpointError:
        raise
    except Exception as error:  # a forged file raises whatever its first wrong value happens to mean
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: not what `save_detector` wrote ({reason}). Fit the detector again.") from error


def _read(path: Path) -> tuple[About, dict[str, Tensor]]:
    """What is in a file that is as it was written."""
    try:
        with safe_open(path, "pt") as file:
            about = dict(file.metadata() or {})
            if about.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path}: not a detector of this odefend. Name a file that it wrote, or fit the detector again."
                )
            if not is_intact(path):
                raise CheckpointError(
                    f"{path}: its SHA-256 is not the one it was written with; the file is damaged or was changed. Restore it, or "
                    "fit the detector again."
                )
            return About(**about), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValidationError) as error:
        first = (
            error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error).splitlines()[0]}
        )
        reason = ": ".join(map(str, (*first["loc"], first["msg"])))
        raise CheckpointError(f"{path}: missing or damaged: {reason}. Fit the detector again.") from error


def _solved_so(net: Classifier, then: dict[str, Any]) -> Classifier:
    """The net, solved as a file says."""
    return net.at(**then | {"tolerance": tuple(then["tolerance"])}) if isinstance(net, Solving) and then else net


def _check_solved(path: Path, net: Classifier, then: dict[str, Any]) -> None:
    """Raise CheckpointError unless a net is solved as it was then."""
    if then != (now := _solved(net)):
        other = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
        raise CheckpointError(
            f"{path}: expected the net solved as it was then, got "
            + ", ".join(f"{name} {now.get(name)} instead of {then.get(name)}" for name in other)
            + "."
        )


def _check_learned(detector: Detector) -> None:
    """Raise unless what a detector learned serves it: it is asked about a blank image."""
    if detector.learned is None:
        return
    size = [int(side) for side in detector.learned["size"]]
    if len(size) != 3 or min(size) < 1 or math.prod(size) > LARGEST:
        raise ValueError(f"it learned from images of the size {size}")
    weights = next(detector.net.parameters(), torch.zeros(()))
    with torch.no_grad():
        detector.score(weights.new_zeros(1, *size), ["blank"])


def _solved(net: Classifier) -> dict[str, Any]:
    """How a net is solved, which its scores depend on as on its weights: everything that decides a solution."""
    return net.solved if isinstance(net, Solving) else {}


def _digests(detector: Detector) -> dict[str, str]:
    """Of the weights of the models of images beside a detector."""
    return {name: weights_digest(model) for name, model in detector.beside.items()}


def _file(path: Path) -> Path:
    """The path with its ending; a name may have dots of its own."""
    return path if path.suffix == ".safetensors" else path.with_name(f"{path.name}.safetensors")


def _part(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
