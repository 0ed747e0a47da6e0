"""Detectors in files: fitted, calibrated, put to use."""

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch

from odefend import intervals
from odefend.attacks import ATTACKS, named_attack
from odefend.cli.attack import default_data, setting
from odefend.cli.output import print_json, say, show
from odefend.cli.progress import showing
from odefend.data import DATASETS, LabelledImages, batches, pictures_below
from odefend.detectors import (
    DETECTORS,
    Calibrated,
    Detector,
    Screening,
    load_detector,
    named_detector,
    save_detector,
    setting_types,
)
from odefend.errors import InvalidInput, unknown
from odefend.models import Classifier, ODENet, load
from odefend.progress import Progress
from odefend.report import Table
from odefend.rng import content_ids
from odefend.tensors import Images

BATCH = 128
SHOWN = 40
"""Rows of a table of single images; JSON has all."""


def run_list(as_json: bool) -> None:
    """What there is."""
    found = [
        {
            "name": name,
            "looks at": _first_words(kind.__doc__ or ""),
            "needs": "an ODE net" if kind.of_solver else "any net",
            "learns from": "clean and attacked images"
            if kind.supervised
            else "clean images"
            if kind.learns
            else "nothing",
            "settings": ", ".join(f"{one}={getattr(kind, one)}" for one in setting_types(kind) if hasattr(kind, one)),
        }
        for name, kind in DETECTORS.items()
    ]
    if as_json:
        print_json(found)
        return
    rows = tuple(tuple(one.values()) for one in found)
    note = "Fit one by `odefend detector fit NAME NET`; the suspicion of an image is higher the larger its score."
    show(Table("Detectors", tuple(found[0]), rows, note))


def _first_words(text: str) -> str:
    """Of a docstring, as much as fits a table."""
    return re.split(r"[:(]", " ".join(text.split()))[0].split(". ")[0].strip(" .")


def run_fit(
    name: str, net: str, settings: list[str], tolerance: float | None, data: str | None, images: int, attack: str,
    attack_settings: list[str], out: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Learn, and write."""
    view = _net(net, tolerance)
    detector = named_detector(name, view, dict(map(setting, settings)))
    out, learned = out or Path(f"{name}-{Path(net).stem}.safetensors"), "nothing to learn"
    if detector.learns:
        clean = _images(data or default_data(net), "train", images)
        with showing(quiet) as progress:
            attacked = _attacked(view, clean, attack, attack_settings, progress) if detector.supervised else None
            progress.stage(f"fit {name}", 1)
            detector.fit(clean.images, attacked)
            progress.advance(1)
        learned = f"fitted to {len(clean)} images" + ("" if attacked is None else f" and {len(attacked)} attacked ones")
    written = save_detector(detector, out)
    say(f"{name} beside {net}: {learned}", f"Detector: {written}", f"Next: odefend detector calibrate {written}")


def _attacked(net: Classifier, clean: LabelledImages, name: str, settings: list[str], progress: Progress) -> Images:
    """What an attack makes of the images that it breaks."""
    attack = named_attack(name, ({"epsilon": 0.1} if _wants_a_radius(name) else {}) | dict(map(setting, settings)))
    found = attack(net, clean.images, clean.labels, ids=clean.ids, progress=progress)
    if not bool(found.success.any()):
        raise InvalidInput(
            f"attack: expected one that breaks some of {len(clean)} images, {name} broke none. Make it stronger."
        )
    return found.images[found.success]


def _wants_a_radius(attack: str) -> bool:
    """Whether an attack, by its own name, has no radius unless one is given."""
    return attack in ATTACKS and any(
        one.name == "epsilon" and one.default is MISSING for one in fields(ATTACKS[attack])
    )


def run_calibrate(file: Path, net: str | None, data: str | None, images: int, quiet: bool) -> None:
    """Score clean images, and write them into the file."""
    detector = load_detector(file, net)
    bare = detector.detector if isinstance(detector, Calibrated) else detector
    clean = _images(_data(bare, data), "validation", images)
    with showing(quiet) as progress:
        scores = _scored(bare, clean, f"calibrate {file.stem}", progress)
    calibrated = Calibrated.of(bare, scores, clean.images)
    written = save_detector(calibrated, file)
    levels = [share for share in (0.01, 0.05, 0.1) if share * (len(clean) + 1) >= 1]
    rows = tuple((f"{100 * share:g} %", f"{calibrated.calibration.threshold(share):.6g}") for share in levels)
    note = (
        f"On {len(clean)} validation images. The share of clean images of the same kind that alarm is at most the allowed one, on "
        f"average over calibrations. No share below {100 / (len(clean) + 1):.2g} % can be promised."
    )
    show(Table(f"Calibrated: {written}", ("false alarms allowed", "alarm above"), rows, note))


def run_score(
    file: Path, pictures: list[Path], net: str | None, data: str | None, images: int, allowed: float, quiet: bool, as_json: bool
) -> None:  # fmt: skip
    """Score, and tell which alarm."""
    detector = load_detector(file, net)
    if not isinstance(detector, Calibrated):
        raise InvalidInput(f"{file}: expected a calibrated detector. Run: odefend detector calibrate {file}")
    detector.calibration.threshold(allowed)
    found = list[tuple[str, float, float, str]]()
    with showing(quiet) as progress:
        if pictures:
            files = pictures_below(pictures)
            total, parts = len(files), batches(files, BATCH, grey=detector.detector.net.in_channels == 1)
        else:
            whole = _images(_data(detector.detector, data), "test", images)
            total, parts = len(whole), (whole[start : start + BATCH] for start in range(0, len(whole), BATCH))
        progress.stage(f"score by {file.stem}", total)
        for some in parts:
            found += _told(some.ids, _screened(detector, some, allowed, named=not pictures))
            progress.advance(len(found))
    if as_json:
        print_json(
            [{"image": name, "score": score, "p_value": p, "verdict": verdict} for name, score, p, verdict in found]
        )
        return
    _show(found, allowed, file)


def _screened(detector: Calibrated, some: LabelledImages, allowed: float, *, named: bool) -> Screening:
    """What the detector says of images; of those of another size nothing, and they are not looked at."""
    if tuple(some.pixels.shape[1:]) != detector.kind.size:
        return Screening.nothing(len(some))
    # The name of a file must not decide what is drawn for it: a picture renamed is the same picture.
    return detector.screen(some.images, some.ids if named else content_ids(some.images), allowed)


def _told(ids: tuple[str, ...], seen: Screening) -> list[tuple[str, float, float, str]]:
    verdicts = [
        "alarm" if alarm else "accepted" if known else "not calibrated for this kind of image"
        for alarm, known in zip(seen.alarms.tolist(), seen.calibrated.tolist(), strict=True)
    ]
    return list(zip(ids, seen.scores.tolist(), seen.p_values.tolist(), verdicts, strict=True))


def _show(found: list[tuple[str, float, float, str]], allowed: float, file: Path) -> None:
    """The most suspicious images, and how many alarm."""
    known = [one for one in found if one[2] == one[2]]
    alarms = intervals.rate(sum(one[3] == "alarm" for one in known), len(known))
    ordered = sorted(found, key=lambda one: one[2] if one[2] == one[2] else 2.0)
    rows = tuple(
        (name, f"{score:.6g}" if score == score else "-", f"{p:.4f}" if p == p else "-", verdict)
        for name, score, p, verdict in ordered[:SHOWN]
    )
    more = f" The {SHOWN} most suspicious of {len(found)}; --json has all." if len(found) > SHOWN else ""
    note = (
        f"{alarms.percent} of {len(known)} alarm, at {100 * allowed:g} % false alarms allowed; {len(found) - len(known)} are of "
        f"another kind than the detector was calibrated for.{more}"
    )
    show(Table(f"Scores by {file}", ("image", "score", "p-value", "verdict"), rows, note))


def _data(detector: Detector, data: str | None) -> str:
    """The data set named, or what the net was trained on."""
    card = detector.net.card
    if data is None and card is None:
        raise InvalidInput("data: expected the name of a data set, since the net does not say what it was trained on.")
    return data or card.data


def _net(name: str, tolerance: float | None) -> Classifier:
    net = load(name)
    if tolerance is None:
        return net
    if not isinstance(net, ODENet):
        raise InvalidInput(f"tolerance: expected none for {name}, which solves nothing, got {tolerance:g}.")
    return net.at(tolerance)


def _images(data: str, split: str, count: int) -> LabelledImages:
    if data not in DATASETS:
        raise unknown("data set", data, DATASETS)
    return DATASETS[data](split)[:count]


@torch.no_grad()
def _scored(detector: Detector, data: LabelledImages, stage: str, progress: Progress) -> Any:
    progress.stage(stage, len(data))
    parts = []
    for start in range(0, len(data), BATCH):
        some = data[start : start + BATCH]
        parts.append(detector.score(some.images, some.ids).double())
        progress.advance(start + len(some))
    return torch.cat(parts)
