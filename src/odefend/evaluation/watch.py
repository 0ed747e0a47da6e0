"""Detectors that stand beside a net in units of work, and attackers who know them. Small values, as in `views`."""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from odefend.attacks import Guard
from odefend.detectors import DETECTORS, Detector, named_detector
from odefend.errors import InvalidInput
from odefend.evaluation.ledger import Ledger
from odefend.evaluation.views import Slice, View
from odefend.models import weights_digest


@dataclass(frozen=True)
class Watch:
    """A detector beside a net, by its name and its settings as JSON.

    `learn`: the clean images that one which learns is fitted to; `attacked`: keys of the crafted shards whose successful
    images a supervised one is shown. `label`: what tables call it; default: its name.
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

    def record(self, view: View) -> dict[str, Any]:
        """What decides a score beside a net, for the digest of a unit."""
        models = _opened(self, view).beside.items()
        learned = {"learn": self.learn and self.learn.open().digest, "attacked": self.attacked}
        how = {"detector": self.detector, "settings": self.settings, "label": self.label}
        how |= {"beside": {name: weights_digest(model) for name, model in models}}
        return how | (learned if DETECTORS[self.detector].learns else {})

    def passes(self, view: View) -> int:
        """Through the net, for one score."""
        return _opened(self, view).cost

    def open(self, view: View, ledger: Ledger) -> Detector:
        """The detector beside a net, fitted where there is something to learn."""
        return _fitted(self.detector, self.settings, self.learn, self.attacked, view, ledger.folder)


@lru_cache(maxsize=64)
def _opened(watch: Watch, view: View) -> Detector:
    """The detector, not fitted."""
    return named_detector(watch.detector, view.open(), json.loads(watch.settings))


@lru_cache(maxsize=16)
def _fitted(
    name: str, settings: str, learn: Slice | None, attacked: tuple[str, ...], view: View, folder: Path
) -> Detector:
    detector = named_detector(name, view.open(), json.loads(settings))
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
class Guarded:
    """A detector that refuses images above a threshold, and an attacker who knows both: see `attacks.Guard`.

    What the detector draws at random the search does not see: it follows other draws, and at most `searched` of them. But what
    it finds is confirmed by the detector's own draws, so of the images that it keeps some suit these by luck. Judge them under
    draws that no attack has seen.
    """

    watch: Watch
    threshold: float
    scale: float
    way: str = "selective"
    searched: int = 5

    def open(self, view: View, ledger: Ledger) -> Guard:
        """The detector as an attack is given it."""
        detector = self.watch.open(view, ledger)
        followed = detector.redrawn(self.searched)
        return Guard(detector, self.threshold, self.scale, self.way, None if followed is detector else followed)

    def record(self, view: View) -> dict[str, Any]:
        """What decides an attack on both, for the digest of a unit and for its rows."""
        return asdict(self) | {"watch": self.watch.record(view)}

    def passes(self, view: View) -> int:
        """Through the net, for a gradient of the score that is searched."""
        return _opened(self.watch, view).redrawn(self.searched).cost
