"""Detectors in files: fitted, calibrated, put to use."""

import math
import re
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from odefend import intervals
from odefend.attacks import ATTACKS, named_attack
from odefend.cli.chosen import chosen_data, first_images, setting
from odefend.cli.output import print_json, say, show
from odefend.cli.progress import showing
from odefend.data import LabelledImages, batches, pictures_below
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
from odefend.errors import InvalidInput
from odefend.models import Classifier, ODENet, load
from odefend.progress import Progress
from odefend.report import Table
from odefend.rng import content_ids
from odefend.tensors import Images

BATCH = 128
OTHER, UNREAD = "not calibrated for this kind of image", "not read"
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
    name: str, net: str, settings: list[str], tolerance: float | None, data: str | None, options: list[str], images: int,
    attack: str, attack_settings: list[str], out: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Learn, and write."""
    view = _net(net, tolerance)
    detector = named_detector(name, view, dict(map(setting, settings)))
    out, learned = out or Path(f"{name}-{Path(net).stem}.safetensors"), "nothing to learn"
    if detector.learns:
        clean = first_images(chosen_data(view, data, options), "train", images)
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


def run_calibrate(file: Path, net: str | None, data: str | None, options: list[str], images: int, quiet: bool) -> None:
    """Score clean images, and write them into the file."""
    detector = load_detector(file, net)
    bare = detector.detector if isinstance(detector, Calibrated) else detector
    clean = first_images(chosen_data(bare.net, data, options), "validation", images)
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


@dataclass(frozen=True)
class Scored:
    """What is said of an image; `why`, where nothing can be."""

    image: str
    score: float
    p_value: float
    verdict: str
    why: str = ""

    @property
    def known(self) -> bool:
        """Whether anything is."""
        return not math.isnan(self.p_value)


def run_score(
    file: Path, pictures: list[Path], net: str | None, data: str | None, options: list[str], images: int, allowed: float,
    quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Score, and tell which alarm; the exit status is 1 where a picture could not be read."""
    detector = load_detector(file, net)
    if not isinstance(detector, Calibrated):
        raise InvalidInput(f"{file}: expected a calibrated detector. Run: odefend detector calibrate {file}")
    detector.calibration.threshold(allowed)
    found, bare = list[Scored](), detector.detector.net
    with showing(quiet) as progress:
        if pictures:
            files = pictures_below(pictures)

            def unread(name: str, why: str) -> None:
                found.append(Scored(name, math.nan, math.nan, UNREAD, why))

            total, parts = len(files), batches(files, BATCH, unread, grey=bare.in_channels == 1)
        else:
            whole = first_images(chosen_data(bare, data, options), "test", images)
            total, parts = len(whole), (whole[start : start + BATCH] for start in range(0, len(whole), BATCH))
        progress.stage(f"score by {file.stem}", total)
        for some in parts:
            found += _told(some.ids, _screened(detector, some, allowed, named=not pictures))
            progress.advance(len(found))
        progress.advance(total)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        show(_scores(found, allowed, file))
    return int(any(one.verdict == UNREAD for one in found))


def _screened(detector: Calibrated, some: LabelledImages, allowed: float, *, named: bool) -> Screening:
    """What the detector says of images; of those of another size nothing, and they are not looked at."""
    if wrong := detector.kind.wrong_size(tuple(some.pixels.shape[1:])):
        return Screening.nothing((wrong,) * len(some))
    # The name of a file must not decide what is drawn for it: a picture renamed is the same picture.
    return detector.screen(some.images, some.ids if named else content_ids(some.images), allowed)


def _told(ids: tuple[str, ...], seen: Screening) -> list[Scored]:
    verdicts = [
        "alarm" if alarm else "accepted" if known else OTHER
        for alarm, known in zip(seen.alarms.tolist(), seen.calibrated.tolist(), strict=True)
    ]
    return list(map(Scored, ids, seen.scores.tolist(), seen.p_values.tolist(), verdicts, seen.why_not))


def _scores(found: list[Scored], allowed: float, file: Path) -> Table:
    """The most suspicious images, and how many alarm."""
    ordered = sorted(found, key=lambda one: one.p_value if one.known else 2.0)
    rows = tuple(
        (
            one.image,
            f"{one.score:.6g}" if one.known else "-",
            f"{one.p_value:.4f}" if one.known else "-",
            f"{one.verdict}: {one.why}" if one.why else one.verdict,
        )
        for one in ordered[:SHOWN]
    )
    more = f" The {SHOWN} most suspicious of {len(found)}; --json has all." if len(found) > SHOWN else ""
    note = f"{_alarms([one for one in found if one.known], allowed)}{_others(found)}{more}"
    return Table(f"Scores by {file}", ("image", "score", "p-value", "verdict"), rows, note)


def _alarms(known: list[Scored], allowed: float) -> str:
    if not known:
        return "No image is of the kind that the detector was calibrated for, so nothing is said of any."
    alarms = intervals.rate(sum(one.verdict == "alarm" for one in known), len(known))
    return f"{alarms.percent} of {len(known)} alarm, at {100 * allowed:g} % false alarms allowed."


def _others(found: list[Scored]) -> str:
    """How many images nothing is said of."""
    other, unread = (sum(one.verdict == verdict for one in found) for verdict in (OTHER, UNREAD))
    text = f" {other} are of another kind than the detector was calibrated for." if other else ""
    return text + (f" {unread} could not be read." if unread else "")


def _net(name: str, tolerance: float | None) -> Classifier:
    net = load(name)
    if tolerance is None:
        return net
    if not isinstance(net, ODENet):
        raise InvalidInput(f"tolerance: expected none for {name}, which solves nothing, got {tolerance:g}.")
    return net.at(tolerance)


@torch.no_grad()
def _scored(detector: Detector, data: LabelledImages, stage: str, progress: Progress) -> Any:
    progress.stage(stage, len(data))
    parts = []
    for start in range(0, len(data), BATCH):
        some = data[start : start + BATCH]
        parts.append(detector.score(some.images, some.ids).double())
        progress.advance(start + len(some))
    return torch.cat(parts)
