"""A unit of work: show images to a detector."""

from dataclasses import asdict, dataclass
from functools import cached_property

import torch

from odefend.attacks.problem import padded_batches
from odefend.evaluation.craft import Craft
from odefend.evaluation.judge import pushed
from odefend.evaluation.ledger import Ledger, digest, listed
from odefend.evaluation.views import Slice, View
from odefend.evaluation.watch import Watch
from odefend.progress import Progress, Silent


@dataclass(frozen=True)
class Screen:
    """Score clean images, or those crafted by another unit and pushed on to `scales` (s in x + s (x_adv - x)), by a detector
    beside a net; writes rows of `scored`."""

    experiment: str
    view: View
    images: Slice
    watch: Watch
    crafted: Craft | None = None
    scales: tuple[float, ...] = (1.0,)
    trial: str | None = None

    table = "scored"

    @cached_property
    def key(self) -> str:
        """The shard's key."""
        return digest(
            {
                "view": self.view.record() | {"at": asdict(self.view)},
                "data": self.images.open().digest,
                "detector": self.watch.record(self.view),
                "scales": self.scales,
                "crafted": self.crafted.key if self.crafted else None,
            }
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of units that must be done before."""
        return (*((self.crafted.key,) if self.crafted else ()), *self.watch.attacked)

    def done(self, ledger: Ledger) -> bool:
        """Whether the rows are there."""
        return ledger.has("scored", self.key)

    @property
    def _kind(self) -> str:
        if self.crafted:
            return "adversarial"
        return "benign" if self.images.changed else "calibration" if self.images.split == "validation" else "clean"

    @torch.no_grad()
    def run(self, ledger: Ledger, progress: Progress | None = None) -> None:
        """Score and write."""
        data, progress, times = self.images.open(), progress or Silent(), len(self.scales)
        target = ledger.read_images(self.crafted.key) if self.crafted else data.images
        images = torch.cat([pushed(data.images, target, scale) for scale in self.scales])
        ids, scores = data.ids * times, []
        detector = self.watch.open(self.view, ledger)
        progress.stage("screen", len(images))
        for rows, batch, size in padded_batches(torch.arange(len(images)), images):
            scores.append(detector.score(batch, [ids[row] for row in rows.tolist()])[:size])
            progress.advance(int(rows[size - 1]) + 1)
        ledger.write(
            "scored",
            self.key,
            self.view.record()
            | {
                "image": list(ids),
                "label": listed(data.labels) * times,
                "data_digest": data.digest,
                "rtol": self.view.tolerance,
                "atol": self.view.tolerance,
                "kind": self._kind,
                "crafted": self.crafted.key if self.crafted else None,
                "scale": [scale for scale in self.scales for _ in data.ids],
                "detector": self.watch.name,
                "cost": detector.cost,
                "score": listed(torch.cat(scores).double()),
            },
        )
