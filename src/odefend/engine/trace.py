"""A unit of work: follow the states of attacked images and of their originals through the ODE.

How far they drift apart is what Carrara et al. (WIFS 2019, Fig. 2) draw: the paper writes ||h(t) - h_adv(t)||, its code
compares what the head makes of the states, ReLU(GroupNorm(h)).
"""

from dataclasses import asdict, dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odefend.attacks.problem import padded_batches
from odefend.engine.craft import Craft
from odefend.engine.specs import ModelSpec, Slice
from odefend.errors import InvalidInput
from odefend.ledger.storage import Ledger, digest, listed
from odefend.models import ODENet
from odefend.progress import Progress, Silent
from odefend.version import code_of


@dataclass(frozen=True)
class Trace:
    """Follow the images of another unit, at the tolerance they were attacked at, at `points` times from 0 to the end; writes
    rows of `traced`."""

    crafted: Craft
    points: int = 51

    table = "traced"

    @property
    def model(self) -> ModelSpec:
        """The model, as it was attacked."""
        return self.crafted.model

    @property
    def images(self) -> Slice:
        """The originals."""
        return self.crafted.images

    @cached_property
    def key(self) -> str:
        """The shard's key."""
        return digest(
            {
                "trace": self.crafted.key,
                "points": self.points,
                "model": asdict(self.model),
                "code": code_of(__name__),
            }
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of units that must be done before."""
        return (self.crafted.key,)

    @property
    def cost(self) -> float:
        """Gradients of single images, about."""
        return 2.0 * (self.images.stop - self.images.start)

    @torch.no_grad()
    def run(self, ledger: Ledger, progress: Progress | None = None) -> None:
        """Solve both and write how far apart they are."""
        net, data, progress = self.model.open(), self.images.open(), progress or Silent()
        if not isinstance(net, ODENet):
            raise InvalidInput(f"trace: expected an ODE net, got {self.model.net}, which solves nothing.")
        made, adversarial = ledger.read_shard("crafted", self.crafted.key), ledger.read_images(self.crafted.key)
        times = torch.linspace(0, float(net.settings.t1), self.points, dtype=torch.float64)
        found: dict[str, list[Tensor]] = {"raw": [], "head_features": [], "cosine": []}
        progress.stage("trace", len(data))
        rows = torch.arange(len(data))
        for some, batch, size in padded_batches(rows, data.images):
            paths = [net.trajectory(shown, times).path[:size] for shown in (batch, adversarial[some])]
            heads = [_head_features(net, path) for path in paths]
            found["raw"].append((paths[0] - paths[1]).flatten(2).norm(dim=2))
            found["head_features"].append((heads[0] - heads[1]).flatten(2).norm(dim=2))
            found["cosine"].append(1 - F.cosine_similarity(paths[0].flatten(2), paths[1].flatten(2), dim=2))
            progress.advance(int(some[size - 1]) + 1)
        ledger.write(
            "traced",
            self.key,
            self.model.record()
            | {
                "image": list(data.ids),
                "label": listed(data.labels),
                "data_digest": data.digest,
                "crafted": self.crafted.key,
                "attack_success": made["success"].to_list(),
                "time": [times.tolist()] * len(data),
                **{name: listed(torch.cat(parts)) for name, parts in found.items()},
                "code_version": code_of(__name__),
            },
        )


def _head_features(net: ODENet, path: Tensor) -> Tensor:
    """What the head's normalization and ReLU make of each state of a path (N, T, C, H, W)."""
    if not isinstance(net.head, nn.Sequential):
        return path
    normalize = net.head[:2]
    return torch.stack([normalize(state) for state in path.unbind(1)], 1)
