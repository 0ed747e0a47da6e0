"""Principal components of clean images (Hendrycks & Gimpel, arXiv 1608.00530)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from odefend.detectors.base import Detector
from odefend.errors import InvalidInput
from odefend.models import Classifier
from odefend.tensors import Images, OtherImages, PerImage

QUANTIZATION = 1 / (12 * 255**2)
"""The variance that rounding to 255 levels adds to any direction; none is whitened by less."""


@dataclass(eq=False)
class PrincipalComponents(Detector):
    """The logarithm of the mean square of an image's late coefficients, whitened: clean images have next to nothing there.

    `late` is the share of the components that count, the last ones in the order of their variance.
    """

    learns = True
    net: Classifier
    late: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.late <= 1:
            raise InvalidInput(f"late: expected a share above 0 and up to 1, got {self.late}.")

    @property
    def cost(self) -> int:
        return 0

    def learn(self, clean: Images, attacked: OtherImages | None) -> dict[str, Tensor]:  # noqa: ARG002
        if len(clean) < 2:
            raise InvalidInput(f"clean: expected at least 2 images to find components of, got {len(clean)}.")
        flat = clean.flatten(1).double().cpu()
        solver = "covariance_eigh" if len(flat) > flat.shape[1] else "full"
        found: Any = PCA(svd_solver=solver).fit(flat.numpy())
        # Fewer images than pixels leave directions in which they never vary. Those are the latest of all, and what is left of
        # an image after all components is what it has there.
        components, total = torch.from_numpy(found.components_).contiguous(), flat.shape[1]
        first = min(total - max(1, round(self.late * total)), len(components))
        return {
            "mean": torch.from_numpy(found.mean_),
            "components": components,
            "scale": torch.from_numpy(found.explained_variance_).clamp_min(QUANTIZATION).rsqrt(),
            "first": torch.tensor(first),
        }

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        state = {name: value.to(images.device) for name, value in self.state.items()}
        away = images.flatten(1).double() - state["mean"]
        coefficients, first = away @ state["components"].T, int(state["first"])
        total = (coefficients * state["scale"])[:, first:].pow(2).sum(1)
        if len(state["components"]) < away.shape[1]:
            total = total + (away - coefficients @ state["components"]).pow(2).sum(1) / QUANTIZATION
        return (total / (away.shape[1] - first)).clamp_min(1e-12).log()
