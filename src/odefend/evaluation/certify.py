"""A unit of work: prove how far the answers of a smoothed net hold."""

from dataclasses import dataclass
from functools import cached_property

from odefend.defenses import Smoothing
from odefend.errors import InvalidInput
from odefend.evaluation.ledger import Ledger, digest, listed
from odefend.evaluation.views import Slice, View
from odefend.progress import Progress


@dataclass(frozen=True)
class Certify:
    """Certify the answers of a net behind `Smoothing`, the view's defense, on clean images; writes rows of `certified`.

    `selecting`, `draws` and `alpha` are n0, n and alpha of `Smoothing.certify`.
    """

    experiment: str
    view: View
    images: Slice
    selecting: int = 100
    draws: int = 1000
    alpha: float = 0.001
    trial: str | None = None

    table = "certified"
    needs = ()

    @cached_property
    def key(self) -> str:
        """The shard's key."""
        how = {"selecting": self.selecting, "draws": self.draws, "alpha": self.alpha}
        return digest({"view": self.view.identity(), "data": self.images.open().digest, "certify": how})

    def done(self, ledger: Ledger) -> bool:
        """Whether the rows are there."""
        return ledger.has("certified", self.key)

    def run(self, ledger: Ledger, progress: Progress | None = None) -> None:
        """Certify and write."""
        smoothing = self.view.defense and self.view.defense.open()
        if not isinstance(smoothing, Smoothing):
            raise InvalidInput(f"defense: expected smoothing, which alone can certify, got {self.view.defended()}.")
        data = self.images.open()
        found = smoothing.certify(
            self.view.solved(),
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
            self.view.record()
            | {
                "image": data.ids,
                "label": listed(data.labels),
                "data_digest": data.digest,
                "rtol": self.view.tolerance,
                "atol": self.view.tolerance,
                "defense": self.view.defended(),
                "selecting": self.selecting,
                "draws": self.draws,
                "alpha": self.alpha,
                "prediction": listed(found.labels),
                "correct": listed(found.labels == data.labels),
                "radius": listed(found.radius),
                "nfe": listed(found.nfe),
            },
        )
