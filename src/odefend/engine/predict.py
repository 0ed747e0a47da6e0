"""A unit of work: show images, clean or crafted, to a model."""

from dataclasses import asdict, dataclass
from functools import cached_property

import torch

from odefend.attacks.losses import margin
from odefend.attacks.problem import padded_batches
from odefend.defenses import RandomizedNet
from odefend.engine.adversarial import PLAIN, Reshown
from odefend.engine.craft import Craft
from odefend.engine.specs import ModelSpec, Slice
from odefend.ledger.storage import Ledger, digest, listed
from odefend.models import Prediction, join
from odefend.progress import Progress, Silent
from odefend.tensors import Images
from odefend.version import code_of


@dataclass(frozen=True)
class Predict:
    """Show clean images, or those crafted by another unit, to a model, under the numbered draws of one that draws; writes rows of
    `judged`."""

    model: ModelSpec
    images: Slice
    crafted: Craft | None = None
    reshown: Reshown = PLAIN
    draws: tuple[int, ...] = (0,)

    table = "judged"

    @cached_property
    def key(self) -> str:
        """The shard's key."""
        return digest(
            {
                "model": self.model.identity(),
                "data": self.images.digest,
                "reshown": asdict(self.reshown),
                "draws": self.draws,
                "crafted": self.crafted.key if self.crafted else None,
                "code": code_of(__name__),
            }
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of units that must be done before."""
        return (self.crafted.key,) if self.crafted else ()

    @property
    def cost(self) -> float:
        """Gradients of single images, about: an answer counts as 0.4 of one."""
        shown = (self.images.stop - self.images.start) * len(self.reshown.scales) * len(self.draws)
        return 0.4 * shown * self.model.passes

    @torch.no_grad()
    def run(self, ledger: Ledger, progress: Progress | None = None) -> None:
        """Judge under each draw and write all rows."""
        data, progress = self.images.open(), progress or Silent()
        target, outcome, wrong = data.images, [None] * len(data), [None] * len(data)
        if self.crafted:
            rows = ledger.read_shard("crafted", self.crafted.key)
            target = ledger.read_images(self.crafted.key)
            outcome, wrong = rows["success"].to_list(), rows["initially_wrong"].to_list()
        images, scales, draws = self.reshown.shown(data.images, target), len(self.reshown.scales), len(self.draws)
        labels = data.labels.repeat(scales * draws)
        progress.stage("predict", len(labels))
        seen = self._seen(images, data.ids * scales, progress)
        ledger.write(
            "judged",
            self.key,
            self.model.record()
            | self.reshown.columns(len(data))
            | {
                "image": list(data.ids) * scales * draws,
                "label": listed(labels),
                "data_digest": data.digest,
                "kind": "adversarial" if self.crafted else "clean",
                "split": self.images.split,
                "change": self.images.change,
                "crafted": self.crafted.key if self.crafted else None,
                "attack_success": outcome * scales * draws,
                "initially_wrong": wrong * scales * draws,
                "scale": [scale for scale in self.reshown.scales for _ in data.ids] * draws,
                "draw": [draw for draw in self.draws for _ in range(len(images))],
                "prediction": listed(seen.labels),
                "correct": listed(seen.correct(labels)),
                "margin": listed(seen.margin),
                "true_margin": listed(-margin(seen.logits, labels)),
                "nfe": listed(seen.nfe),
                "accepted": listed(seen.accepted),
                "rejected": listed(seen.rejected),
                "status": listed(seen.status),
                "code_version": code_of(__name__),
            },
        )

    def _seen(self, images: Images, ids: tuple[str, ...], progress: Progress) -> Prediction:
        """The model's answers to all images, draw by draw."""
        net, parts = self.model.open(), []
        for draw in self.draws:
            drawn = net.draw(ids, draw) if isinstance(net, RandomizedNet) else net
            for rows, batch, size in padded_batches(torch.arange(len(images)), images):
                parts.append(drawn.rows(rows).predict(batch).first(size))
                progress.advance(sum(len(part.logits) for part in parts))
        return join(parts)
