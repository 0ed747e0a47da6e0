"""The strongest of several attacks, image by image."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from odefend.attacks.base import Adversarial, Attack
from odefend.errors import InvalidInput
from odefend.models import Classifier
from odefend.progress import Progress


@dataclass(frozen=True)
class Strongest:
    """What was found with the best source for each image, and which source that was (an index into `sources`)."""

    found: Adversarial
    source: Tensor


def strongest(
    attack: Attack,
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    sources: Sequence[Classifier | None],
    *,
    ids: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Strongest:
    """Run an attack once with each of the sources (None: the classifier itself) and keep each image's best result: one
    that succeeds before one that does not, and then the nearest for a minimum-norm attack, the first otherwise.

    For ODE nets, sources of other tolerances, gradient modes and fixed steps tell masked gradients from robustness. Calls
    are summed over the sources, for the attacker pays for all of them; `history` is that of the chosen source.
    """
    if not sources:
        raise InvalidInput("sources: expected one or more, got none.")
    runs = [
        attack(classifier, images, labels, ids=ids, seed=seed, source=source, progress=progress) for source in sources
    ]
    # Smaller is better; the first of equals is kept.
    cost = torch.stack([(~run.success).to(images) for run in runs])
    if attack.budget is None:
        cost = torch.stack([torch.where(run.success, run.distance, torch.inf) for run in runs])
    best, one = cost.argmin(0), torch.arange(len(images), device=images.device)
    chosen = {
        field.name: torch.stack([getattr(run, field.name) for run in runs])[best, one] for field in fields(Adversarial)
    }
    for name in ("gradient_calls", "forward_calls", "zero_gradients"):
        chosen[name] = torch.stack([getattr(run, name) for run in runs]).sum(0)
    return Strongest(Adversarial(**chosen), best)
