"""Adversarial images as they reach a judge: scaled, rescaled to a size, or rounded as a file would round them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from odefend.tensors import Images, OtherImages


@dataclass(frozen=True)
class Reshown:
    """What becomes of adversarial images before they are judged.

    `scales`: s in x + s (x_adv - x), the first of what is done. `to_epsilon`: each perturbation is rescaled to this L-inf size
    instead. `rounded`: to 8 bits, as in a PNG file.
    """

    scales: tuple[float, ...] = (1.0,)
    to_epsilon: float | None = None
    rounded: bool = False

    def shown(self, clean: Images, adversarial: Images) -> OtherImages:
        """(scales x N) images: all at the first scale, then all at the second, and so on."""
        return torch.cat([self._at(clean, adversarial, scale) for scale in self.scales])

    def _at(self, clean: Images, adversarial: Images, scale: float) -> Tensor:
        images = adversarial
        if self.to_epsilon is not None:
            delta = adversarial - clean
            size = delta.flatten(1).abs().amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
            images = (clean + delta * (self.to_epsilon / size)).clamp(0, 1)
        if scale != 1.0:  # at 1 the adversarial images themselves, to the last bit
            images = (clean + scale * (images - clean)).clamp(0, 1)
        return (255 * images).round() / 255 if self.rounded else images

    def columns(self, count: int) -> dict[str, object]:
        """What rows of `count` images at each scale say of it."""
        return {
            "scale": [scale for scale in self.scales for _ in range(count)],
            "to_epsilon": self.to_epsilon,
            "rounded": self.rounded,
        }


PLAIN = Reshown()
"""As they are."""
