"""A unit of work: prove how far the answers of a smoothed net hold."""

from dataclasses import dataclass
from functools import cached_property

from odefend.defenses import Smoothing
from odefend.engine.specs import ModelSpec, Slice
from odefend.errors import InvalidInput
from odefend.ledger.storage import Ledger, digest, listed
from odefend.progress import Progress
from odefend.version import code_of


@dataclass(frozen=True)
class Certify:
    """Certify the answers of a net behind `Smoothing`, the model's defense, on clean images; writes rows of `certified`.

    `selecting`, `draws` and `alpha` are n0, n and alpha of `Smoothing.certify`.
    """

    model: ModelSpec
    images: Slice
    selecting: int = 100
    draws: int = 1000
    alpha: float = 0.001

    table = "certified"
    needs = ()

    @cached_property
    def key(self) -> str:
        """The shard's key."""
        how = {"selecting": self.selecting, "draws": self.draws, "alpha": self.alpha}
        return digest(
            {
                "model": self.model.identity(),
                "data": self.images.digest,
                "certify": how,
                "code": code_of(__name__),
            }
        )

    @property
    def cost(self) -> float:
        """Gradients of single images, about."""
        return 0.4 * (self.images.stop - self.images.start) * (self.selecting + self.draws)

    def run(self, ledger: Ledger, progress: Progress | None = None) -> None:
        """Certify and write."""
        smoothing = self.model.defense and self.model.defense.open()
        if not isinstance(smoothing, Smoothing):
            raise InvalidInput(f"defense: expected smoothing, which alone can certify, got {self.model.defense}.")
        data = self.images.open()
        found = smoothing.certify(
            self.model.undefended(),
            data.images,
            data.ids,
            n0=self.selecting,
            n=self.draws,
            alpha=self.alpha,
            progress=progress,
        )
        ledger.write(
            "certified",
            self.key,
            self.model.record()
            | {
                "image": data.ids,
                "label": listed(data.labels),
                "data_digest": data.digest,
                "selecting": self.selecting,
                "draws": self.draws,
                "alpha": self.alpha,
                "prediction": listed(found.labels),
                "correct": listed(found.labels == data.labels),
                "radius": listed(found.radius),
                "nfe": listed(found.nfe),
                "code_version": code_of(__name__),
            },
        )
