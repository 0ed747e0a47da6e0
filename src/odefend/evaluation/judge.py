"""A unit of work: show images, clean or crafted, to a net under several conditions."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from odefend.attacks.losses import margin
from odefend.attacks.problem import padded_batches
from odefend.data import LabelledImages
from odefend.defenses import InputNoise, LogUniform, RandomizedNet
from odefend.evaluation.craft import Craft
from odefend.evaluation.ledger import Ledger, digest, listed
from odefend.evaluation.views import Slice, View
from odefend.models import ODENet, Prediction, join
from odefend.progress import Progress, Silent
from odefend.tensors import Images, Times


def pushed(images: Images, adversarial: Images, scale: float) -> Images:
    """x + scale (x_adv - x), clipped to [0, 1]; at 1 the adversarial images themselves, to the last bit."""
    return adversarial if scale == 1.0 else (images + scale * (adversarial - images)).clamp(0, 1)


@dataclass(frozen=True)
class Condition:
    """Under what an image is judged: a tolerance, a distribution of them, input noise; and how far an adversarial
    image is pushed (`scale` s in x + s (x_adv - x)). A net behind a defense is asked as it is: then only the number of the
    `draw` and the `scale` count."""

    tolerance: float | None = None
    random: LogUniform | None = None
    sigma: float = 0.0
    draw: int = 0
    scale: float = 1.0

    @property
    def defense(self) -> str:
        """The name in rows."""
        return "random tolerance" if self.random else "noise" if self.sigma else "tolerance"


@dataclass(frozen=True)
class Judge:
    """Show clean images, or those crafted by another unit, to a net under several conditions; writes rows of `judged`."""

    experiment: str
    view: View
    images: Slice
    conditions: tuple[Condition, ...]
    crafted: Craft | None = None
    seed: int = 0
    trial: str | None = None

    table = "judged"

    @cached_property
    def key(self) -> str:
        """The shard's key."""
        return digest(
            {
                "view": self.view.identity(),
                "data": self.images.open().digest,
                "conditions": [asdict(c) for c in self.conditions],
                "crafted": self.crafted.key if self.crafted else None,
                "seed": self.seed,
            }
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of units that must be done before."""
        return (self.crafted.key,) if self.crafted else ()

    def done(self, ledger: Ledger) -> bool:
        """Whether the rows are there."""
        return ledger.has("judged", self.key)

    def run(self, ledger: Ledger, progress: Progress | None = None) -> None:
        """Judge under each condition and write all rows."""
        data = self.images.open()
        target, outcome, wrong = data.images, [None] * len(data), [None] * len(data)
        if self.crafted:
            rows = ledger.read_shard("crafted", self.crafted.key)
            target = ledger.read_images(self.crafted.key)
            outcome, wrong = rows["success"].to_list(), rows["initially_wrong"].to_list()
        times = len(self.conditions)
        ledger.write(
            "judged",
            self.key,
            self.view.record()
            | self._judge(data, target, progress or Silent())
            | {
                "image": list(data.ids) * times,
                "label": listed(data.labels) * times,
                "data_digest": data.digest,
                "kind": "adversarial" if self.crafted else "clean",
                "split": self.images.split,
                "crafted": self.crafted.key if self.crafted else None,
                "attack_success": outcome * times,
                "initially_wrong": wrong * times,
                "seed": self.seed,
            },
        )

    @torch.no_grad()
    def _judge(self, data: LabelledImages, target: Images, progress: Progress) -> dict[str, list[Any]]:
        """The columns that the conditions and the net's answers fill."""
        labels = data.labels.repeat(len(self.conditions))
        progress.stage("judge", len(labels))
        if self.view.defense is None:
            seen, solved = self._by_net(data, target, progress)
        else:
            seen, solved = self._by_defense(data, target, progress), [self.view.tolerance] * len(labels)

        def each(values: Iterable[Any]) -> list[Any]:
            return [value for value in values for _ in range(len(data))]

        return {
            "defense": each(self.view.defense.name if self.view.defense else c.defense for c in self.conditions),
            "settings": [self.view.defended()] * len(labels),
            "rtol": solved,
            "atol": solved,
            "sigma": each(c.sigma for c in self.conditions),
            "scale": each(c.scale for c in self.conditions),
            "draw": each(c.draw for c in self.conditions),
            "prediction": listed(seen.labels),
            "correct": listed(seen.correct(labels)),
            "margin": listed(seen.margin),
            "true_margin": listed(-margin(seen.logits, labels)),
            "nfe": listed(seen.nfe),
            "accepted": listed(seen.accepted),
            "rejected": listed(seen.rejected),
            "status": listed(seen.status),
        }

    def _by_net(self, data: LabelledImages, target: Images, progress: Progress) -> tuple[Prediction, list[Any]]:
        """The net's answers, and at which tolerance each is. All conditions go through it together, each image with its own
        tolerance: wide batches cost less."""
        net, parts = self.view.open(), []
        images = torch.cat([self._shown(data, target, condition) for condition in self.conditions])
        tolerances = torch.cat([self._tolerances(data, condition) for condition in self.conditions])
        for rows, batch, size in padded_batches(torch.arange(len(images)), images):
            judge = net.at(tolerances[rows]) if isinstance(net, ODENet) else net
            parts.append(judge.predict(batch).first(size))
            progress.advance(int(rows[size - 1]) + 1)
        return join(parts), listed(tolerances) if isinstance(net, ODENet) else [None] * len(images)

    def _by_defense(self, data: LabelledImages, target: Images, progress: Progress) -> Prediction:
        """The answers of the net behind its defense, by the numbered draws of one that draws."""
        net, parts = self.view.open(), []
        for condition in self.conditions:
            if condition != Condition(draw=condition.draw, scale=condition.scale):
                raise ValueError(f"a net behind a defense has no other conditions than draw and scale, got {condition}")
            drawn = net.draw(data.ids, condition.draw) if isinstance(net, RandomizedNet) else net
            images = pushed(data.images, target, condition.scale)
            for rows, batch, size in padded_batches(torch.arange(len(images)), images):
                parts.append(drawn.rows(rows).predict(batch).first(size))
                progress.advance(sum(len(part.logits) for part in parts))
        return join(parts)

    def _shown(self, data: LabelledImages, target: Images, condition: Condition) -> Images:
        """The images as the net sees them."""
        images = pushed(data.images, target, condition.scale)
        return (
            InputNoise(condition.sigma, self.seed).add(images, data.ids, condition.draw) if condition.sigma else images
        )

    def _tolerances(self, data: LabelledImages, condition: Condition) -> Times:
        """The tolerance each image is solved at; NaN for a net without a solver."""
        if condition.random:
            return condition.random.draw(self.seed, data.ids, condition.draw)
        value = torch.nan if condition.tolerance is None else condition.tolerance
        return torch.full((len(data),), value, dtype=torch.float64)
