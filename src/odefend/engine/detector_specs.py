"""Detectors that stand beside a model in units of work, and attackers who know them. Small values, as in `specs`."""

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from odefend.attacks import Guard
from odefend.detectors import Detector, detector_class, named_detector, setting_types
from odefend.engine.specs import ModelSpec, Slice
from odefend.errors import InvalidInput
from odefend.ledger.storage import Ledger
from odefend.models import weights_digest
from odefend.named import class_digest

FRESH = 1000
"""The seed of draws that no attack has seen."""


@dataclass(frozen=True)
class DetectorSpec:
    """A detector beside a model, by its name and its settings as JSON.

    `learn`: the clean images that one which learns is fitted to; `attacked`: keys of the crafted shards whose successful
    images a supervised one is shown. `label`: what an experiment calls it; default: its name.
    """

    detector: str
    settings: str = "{}"
    learn: Slice | None = None
    attacked: tuple[str, ...] = ()
    label: str = ""

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.label or self.detector

    def resampled(self) -> "DetectorSpec":
        """The same with draws that no attack has seen; itself where it draws nothing. A search keeps the image that happened to
        suit the draws it was confirmed by."""
        given, settings = setting_types(detector_class(self.detector)), json.loads(self.settings)
        if detector_class(self.detector).learns:
            return self
        if "defense" in given:
            settings["defense"] = settings.get("defense", {}) | {"seed": FRESH}
        elif "seed" in given:
            settings["seed"] = FRESH
        return replace(self, settings=json.dumps(settings))

    def record(self, model: ModelSpec) -> dict[str, Any]:
        """What decides a score beside a model, for the digest of a unit."""
        models = _opened(self, model).beside.items()
        learned = {"learn": self.learn and self.learn.digest, "attacked": self.attacked}
        how = {"detector": self.detector, "settings": self.settings}
        how |= {"own": class_digest(detector_class(self.detector))}
        how |= {"beside": {name: weights_digest(one) for name, one in models}}
        return how | (learned if detector_class(self.detector).learns else {})

    def passes(self, model: ModelSpec) -> int:
        """Through the net, for one score."""
        return _opened(self, model).cost

    def open(self, model: ModelSpec, ledger: Ledger) -> Detector:
        """The detector beside a model, fitted where there is something to learn."""
        return _fitted(self.detector, self.settings, self.learn, self.attacked, model, ledger.folder)


@lru_cache(maxsize=64)
def _opened(spec: DetectorSpec, model: ModelSpec) -> Detector:
    """The detector, not fitted."""
    return named_detector(spec.detector, model.open(), json.loads(spec.settings))


@lru_cache(maxsize=16)
def _fitted(
    name: str, settings: str, learn: Slice | None, attacked: tuple[str, ...], model: ModelSpec, folder: Path
) -> Detector:
    detector = named_detector(name, model.open(), json.loads(settings))
    if not detector.learns:
        return detector
    if learn is None:
        raise InvalidInput(f"{name}: expected images to learn from.")
    ledger, shown = Ledger(folder), []
    for key in attacked:
        fooled = torch.tensor(ledger.read_shard("crafted", key)["success"].to_list())
        shown.append(ledger.read_images(key)[fooled])
    return detector.fit(learn.open().images, torch.cat(shown) if shown else None)


@dataclass(frozen=True)
class DetectorAware:
    """A detector that refuses images above a threshold, and an attacker who knows both: see `attacks.Guard`.

    What the detector draws at random the search does not see: it follows other draws, and at most `searched` of them. But what
    it finds is confirmed by the detector's own draws, so of the images that it keeps some suit these by luck. Judge them under
    draws that no attack has seen (`DetectorSpec.resampled`).
    """

    detector: DetectorSpec
    threshold: float
    scale: float
    combination: str = "selective"
    searched: int = 5

    def open(self, model: ModelSpec, ledger: Ledger) -> Guard:
        """The detector as an attack is given it."""
        detector = self.detector.open(model, ledger)
        followed = detector.redrawn(self.searched)
        return Guard(detector, self.threshold, self.scale, self.combination, None if followed is detector else followed)

    def record(self, model: ModelSpec) -> dict[str, Any]:
        """What decides an attack on both, for the digest of a unit and for its rows."""
        return asdict(self) | {"detector": self.detector.record(model)}

    def passes(self, model: ModelSpec) -> int:
        """Through the net, for a gradient of the score that is searched."""
        return _opened(self.detector, model).redrawn(self.searched).cost
