"""A unit of work: show images to a detector."""

from dataclasses import asdict, dataclass
from functools import cached_property

import torch

from odefend.attacks.problem import padded_batches
from odefend.engine.adversarial import PLAIN, Reshown
from odefend.engine.craft import Craft
from odefend.engine.detector_specs import DetectorSpec
from odefend.engine.specs import ModelSpec, Slice
from odefend.ledger.storage import Ledger, digest, listed
from odefend.progress import Progress, Silent
from odefend.version import code_of


@dataclass(frozen=True)
class Score:
    """Score clean images, or those crafted by another unit, by a detector beside a model; writes rows of `scored`. `calibrating`:
    thresholds are set on them."""

    model: ModelSpec
    images: Slice
    detector: DetectorSpec
    crafted: Craft | None = None
    reshown: Reshown = PLAIN
    calibrating: bool = False

    table = "scored"

    @cached_property
    def key(self) -> str:
        """The shard's key."""
        return digest(
            {
                "model": self.model.identity(),
                "data": self.images.digest,
                "detector": self.detector.record(self.model),
                "label": self.detector.label,
                "reshown": asdict(self.reshown),
                "crafted": self.crafted.key if self.crafted else None,
                "calibrating": self.calibrating,
                "code": code_of(__name__),
            }
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of units that must be done before."""
        return (*((self.crafted.key,) if self.crafted else ()), *self.detector.attacked)

    @property
    def cost(self) -> float:
        """Gradients of single images, about."""
        shown = (self.images.stop - self.images.start) * len(self.reshown.scales)
        return 0.4 * shown * self.detector.passes(self.model)

    @property
    def _kind(self) -> str:
        if self.crafted:
            return "adversarial"
        return "calibration" if self.calibrating else "benign" if self.images.change else "clean"

    @torch.no_grad()
    def run(self, ledger: Ledger, progress: Progress | None = None) -> None:
        """Score and write."""
        data, progress, times = self.images.open(), progress or Silent(), len(self.reshown.scales)
        target = ledger.read_images(self.crafted.key) if self.crafted else data.images
        images = self.reshown.shown(data.images, target)
        ids, scores = data.ids * times, []
        detector = self.detector.open(self.model, ledger)
        progress.stage("score", len(images))
        for rows, batch, size in padded_batches(torch.arange(len(images)), images):
            scores.append(detector.score(batch, [ids[row] for row in rows.tolist()])[:size])
            progress.advance(int(rows[size - 1]) + 1)
        ledger.write(
            "scored",
            self.key,
            self.model.record()
            | self.reshown.columns(len(data))
            | {
                "image": list(ids),
                "label": listed(data.labels) * times,
                "data_digest": data.digest,
                "kind": self._kind,
                "change": self.images.change,
                "crafted": self.crafted.key if self.crafted else None,
                "detector": self.detector.name,
                "settings": self.detector.settings,
                "cost": detector.cost,
                "score": listed(torch.cat(scores).double()),
                "code_version": code_of(__name__),
            },
        )
