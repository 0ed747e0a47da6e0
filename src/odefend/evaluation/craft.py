"""A unit of work: attack a slice of images. It says how it is made, and writes one shard of rows."""

from dataclasses import dataclass
from functools import cached_property

from odefend.attacks import Attack
from odefend.evaluation.ledger import Ledger, canonical, digest, listed
from odefend.evaluation.views import Slice, View
from odefend.evaluation.watch import Guarded
from odefend.norms import L2, LINF
from odefend.progress import Progress, Silent


@dataclass(frozen=True)
class Craft:
    """Attack a slice of images; writes rows of `crafted` and the images."""

    experiment: str
    attack: Attack
    view: View
    images: Slice
    source: View | None = None
    seed: int = 0
    guard: Guarded | None = None
    trial: str | None = None

    table = "crafted"

    @cached_property
    def key(self) -> str:
        """The shard's key: a digest of attack, nets' weights, images and code version, not of what it is for."""
        data = self.images.open()
        return digest(
            {
                "attack": self.attack.record(),
                "view": self.view.identity(),
                "source": (self.source or self.view).identity(),
                "guard": self.guard and self.guard.record(self.view),
                "data": data.digest,
                "seed": self.seed,
            }
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of units that must be done before."""
        return self.guard.watch.attacked if self.guard else ()

    def done(self, ledger: Ledger) -> bool:
        """Whether the rows are there."""
        return ledger.has("crafted", self.key)

    def run(self, ledger: Ledger, progress: Progress | None = None) -> None:
        """Attack, store the images, then write the rows."""
        data, source = self.images.open(), self.source or self.view
        net = self.view.open(data.ids)
        found = self.attack(
            net,
            data.images,
            data.labels,
            ids=data.ids,
            seed=self.seed,
            source=self.source.open(data.ids) if self.source else None,
            guard=self.guard and self.guard.open(self.view, ledger),
            progress=progress or Silent(),
        )
        delta, settings = found.images - data.images, self.attack.record()
        ledger.write_images(self.key, found.images)
        ledger.write(
            "crafted",
            self.key,
            self.view.record()
            | {
                "image": data.ids,
                "label": listed(data.labels),
                "data_digest": data.digest,
                "rtol": self.view.tolerance,
                "atol": self.view.tolerance,
                "attack": settings.pop("attack"),
                "norm": settings.pop("norm"),
                "epsilon": settings.get("epsilon"),
                "steps": settings.get("steps"),
                "target": self.attack.target,
                "search_precision": self.attack.search_precision,
                "settings": canonical(settings),
                "source": source.net,
                "source_rtol": source.tolerance,
                "source_atol": source.tolerance,
                "source_gradient": source.way if source.record()["gradient"] else None,
                "source_draws": source.draws if source.draws and source.random else None,
                "defense": self.view.defended(),
                "draws": self.view.draws if self.view.draws and self.view.random else None,
                "guard": canonical(self.guard.record(self.view)) if self.guard else None,
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
            },
        )
