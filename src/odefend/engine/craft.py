"""A unit of work: attack a slice of images. It says how it is made, and writes one shard of rows."""

from dataclasses import dataclass
from functools import cached_property

from odefend.attacks import Attack
from odefend.engine.detector_specs import DetectorAware
from odefend.engine.specs import ModelSpec, Slice
from odefend.ledger.storage import Ledger, canonical, digest, listed
from odefend.named import class_digest
from odefend.norms import L2, LINF
from odefend.progress import Progress, Silent
from odefend.version import code_of


@dataclass(frozen=True)
class Craft:
    """Attack a slice of images; writes rows of `crafted` and the images."""

    attack: Attack
    model: ModelSpec
    images: Slice
    source: ModelSpec | None = None
    seed: int = 0
    aware: DetectorAware | None = None

    table = "crafted"

    @cached_property
    def key(self) -> str:
        """The shard's key: a digest of attack, nets' weights, images and code, not of what it is for."""
        return digest(
            {
                "attack": self.attack.record(),
                "model": self.model.identity(),
                "source": (self.source or self.model).identity(),
                "aware": self.aware and self.aware.record(self.model),
                "data": self.images.digest,
                "seed": self.seed,
                "code": self.code,
                "own": class_digest(type(self.attack)),
            }
        )

    @property
    def code(self) -> str:
        """The code that decides the rows."""
        return code_of(__name__, type(self.attack).__module__)

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of units that must be done before."""
        return self.aware.detector.attacked if self.aware else ()

    @property
    def cost(self) -> float:
        """Gradients of single images, about."""
        gradients = self.attack.cost
        if self.aware is not None:  # each gradient is one through the detector as well
            gradients *= 1 + self.aware.passes(self.model)
        images = self.images.stop - self.images.start
        return images * gradients * (1.5 * self.model.passes if self.model.draws else self.model.passes)

    def run(self, ledger: Ledger, progress: Progress | None = None) -> None:
        """Attack, store the images, then write the rows."""
        data, source = self.images.open(), self.source or self.model
        found = self.attack(
            self.model.open(data.ids),
            data.images,
            data.labels,
            ids=data.ids,
            seed=self.seed,
            source=self.source.open(data.ids) if self.source else None,
            guard=self.aware and self.aware.open(self.model, ledger),
            progress=progress or Silent(),
        )
        delta, settings = found.images - data.images, self.attack.record()
        ledger.write_images(self.key, found.images)
        ledger.write(
            "crafted",
            self.key,
            self.model.record()
            | {
                "image": data.ids,
                "label": listed(data.labels),
                "data_digest": data.digest,
                "algorithm": settings.pop("attack"),
                "norm": settings.pop("norm"),
                "epsilon": settings.get("epsilon"),
                "steps": settings.get("steps"),
                "target": self.attack.target,
                "search_precision": self.attack.search_precision,
                "settings": canonical(settings),
                "source": source.net,
                "source_rtol": source.tolerance,
                "source_atol": source.tolerance,
                "source_gradient": source.gradient_mode if source.record()["gradient"] else None,
                "source_draws": source.draws if source.draws and source.random else None,
                "guard": canonical(self.aware.record(self.model)) if self.aware else None,
                "combination": self.aware and self.aware.combination,
                "seed": self.seed,
                "batch": len(data),
                "position": list(range(len(data))),
                "success": listed(found.success),
                "initially_wrong": listed(found.initially_wrong),
                "distance": listed(found.distance),
                "l2": listed(L2.size(delta)),
                "linf": listed(LINF.size(delta)),
                "mse": listed(delta.flatten(1).square().mean(1)),
                "gradient_calls": listed(found.gradient_calls),
                "forward_calls": listed(found.forward_calls),
                "zero_gradients": listed(found.zero_gradients),
                "status": listed(found.status),
                "history": listed(found.history),
                "code_version": self.code,
            },
        )
