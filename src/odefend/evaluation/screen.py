"""A unit of work: show images to a detector."""

from dataclasses import asdict, dataclass
from functools import cached_property

import torch

from odefend.attacks.problem import padded_batches
from odefend.evaluation.craft import Craft
from odefend.evaluation.ledger import Ledger, digest, listed
from odefend.evaluation.views import Slice, View, Watch
from odefend.progress import Progress, Silent


@dataclass(frozen=True)
class Screen:
    """Score clean images, or those crafted by another unit, by a detector beside a net; writes rows of `scored`."""

    experiment: str
    view: View
    images: Slice
    watch: Watch
    crafted: Craft | None = None
    trial: str | None = None

    table = "scored"

    @cached_property
    def key(self) -> str:
        """The shard's key. The detector's threshold does not change a score."""
        watch = asdict(self.watch)
        return digest(
            {
                "view": self.view.record() | {"at": asdict(self.view)},
                "data": self.images.open().digest,
                "detector": {name: watch[name] for name in ("detector", "votes")},
                "crafted": self.crafted.key if self.crafted else None,
            }
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of units that must be done before."""
        return (self.crafted.key,) if self.crafted else ()

    def done(self, ledger: Ledger) -> bool:
        """Whether the rows are there."""
        return ledger.has("scored", self.key)

    @torch.no_grad()
    def run(self, ledger: Ledger, progress: Progress | None = None) -> None:
        """Score and write."""
        data, progress = self.images.open(), progress or Silent()
        images = ledger.read_images(self.crafted.key) if self.crafted else data.images
        detector, scores = self.watch.open(self.view.open(data.ids)).detector, []
        progress.stage("screen", len(images))
        for rows, batch, size in padded_batches(torch.arange(len(images)), images):
            scores.append(detector.score(batch, [data.ids[row] for row in rows.tolist()])[:size])
            progress.advance(int(rows[size - 1]) + 1)
        clean = "calibration" if self.images.split == "validation" else "clean"
        ledger.write(
            "scored",
            self.key,
            self.view.record()
            | {
                "image": list(data.ids),
                "label": listed(data.labels),
                "data_digest": data.digest,
                "rtol": self.view.tolerance,
                "atol": self.view.tolerance,
                "kind": "adversarial" if self.crafted else clean,
                "crafted": self.crafted.key if self.crafted else None,
                "scale": 1.0,
                "detector": self.watch.detector,
                "cost": self.watch.cost,
                "score": listed(torch.cat(scores)),
            },
        )
