"""GLOW (Kingma & Dhariwal, arXiv 1807.03039): an invertible map from images to latent variables, and so a density of images."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import normflows
import torch
from normflows.flows import ActNorm, GlowBlock, Merge, Squeeze
from torch import Tensor

from odefend.errors import InvalidInput
from odefend.models.classifier import check_images
from odefend.models.image_model import ImageModel
from odefend.tensors import Images, PerImage

WIDEST = 1024
"""Channels; a convolution of n to n begins as a random rotation, which takes n ** 3 steps to find."""


class Glow(ImageModel):
    """`levels` times: pixels squeezed into channels, `steps` of normalization, invertible 1x1 convolution and affine coupling
    (a net of `hidden` channels), and half of the channels set aside as latent variables.

    A value of an image is one of `grey` in each channel: it has a bin of width 1 / `grey`, and a density of points gives
    each value the probability of its bin (Theis et al., arXiv 1511.01844). Trained to few bits per dimension.
    """

    def __init__(self, in_channels: int, size: int, levels: int, steps: int, hidden: int, grey: int) -> None:
        super().__init__(in_channels, size)
        if min(levels, steps, hidden) < 1 or grey < 2:
            raise InvalidInput(
                f"levels, steps, hidden: expected at least 1, and grey at least 2, got {levels}, {steps}, {hidden}, {grey}."
            )
        if in_channels * 2 ** (levels + 1) > WIDEST:
            raise InvalidInput(
                f"levels: expected at most {WIDEST} channels in the deepest, got {in_channels} * 2 ** {levels + 1}."
            )
        if size % 2**levels:
            raise InvalidInput(f"size: expected a multiple of {2**levels} for {levels} levels, got {size}.")
        self.grey, self.dimensions = grey, in_channels * size * size
        bases, flows, merges = [], [], []
        for level in range(levels):  # from the deepest one, as normflows counts
            channels = in_channels * 2 ** (levels + 1 - level)
            # The coupling's scale is a sigmoid of its net's output plus 2, so that it begins near the identity.
            blocks = [_block(channels, hidden) for _ in range(steps)]
            flows.append([*blocks, Squeeze()])
            side = size // 2 ** (levels - level)
            kept = channels if level == 0 else channels // 2
            bases.append(normflows.distributions.GlowBase((kept, side, side)))
            if level:
                merges.append(Merge())
        self.flow: Any = normflows.MultiscaleFlow(bases, flows, merges, class_cond=False)
        self._normalized(done=True)

    def prepare(self, images: Images) -> None:
        """Set the normalizations so that they bring these images to mean 0 and variance 1, as published. Until then they
        are the identity: no batch that happens to come first sets them."""
        check_images(images, self.in_channels, self.size)
        self._normalized(done=False)
        with torch.no_grad():
            self.flow.inverse_and_log_det(self._spread(images, torch.rand_like(images)))

    def _normalized(self, *, done: bool) -> None:
        for module in self.flow.modules():
            if isinstance(module, ActNorm):
                module.data_dep_init_done.fill_(float(done))

    def latents(self, images: Images) -> list[Tensor]:
        """The latent variables by level, the deepest first, of the middles of the images' bins; differentiable.

        Raises InvalidInput for images of another size or number of channels.
        """
        check_images(images, self.in_channels, self.size)
        return self.flow.inverse_and_log_det(self._spread(images, 0.5))[0]

    def images(self, latents: Sequence[Tensor]) -> Images:
        """The images that have these latent variables, clipped to [0, 1]: the inverse of `latents`."""
        found = self.flow.forward_and_log_det(list(latents))[0]
        return ((found + 0.5) * self.grey - 0.5).div(self.grey - 1).clamp(0, 1)

    def bits_per_dimension(self, images: Images, place: Tensor | float = 0.5) -> PerImage:
        """Minus the logarithm to base 2 of the probability of each image, per pixel and channel; differentiable.

        `place`: where in its bin each value is taken, in [0, 1). On average over uniform places it is an upper bound of what
        a code by this model takes; at the middle, the default, it is an estimate without anything random.
        """
        check_images(images, self.in_channels, self.size)
        density = self.flow.log_prob(self._spread(images, place), None)
        return math.log2(self.grey) - density / (self.dimensions * math.log(2))

    def sample(self, count: int, seed: int = 0, temperature: float = 0.7) -> Images:
        """Images drawn from the model, with the latent variables' spread times `temperature`; the same for the same seed."""
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            found = self.flow.sample(count, temperature=temperature)[0]
        return ((found + 0.5) * self.grey - 0.5).div(self.grey - 1).clamp(0, 1)

    def loss(self, images: Images) -> PerImage:
        return self.bits_per_dimension(images, torch.rand_like(images))

    def measures(self, images: Images) -> dict[str, PerImage]:
        return {"bits per dimension": self.loss(images)}

    def _spread(self, images: Images, place: Tensor | float) -> Tensor:
        """Values of images to points of their bins, in [-1/2, 1/2)."""
        return (images * (self.grey - 1) + place) / self.grey - 0.5


def _block(channels: int, hidden: int) -> GlowBlock:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.lu is deprecated")  # which normflows calls
        return GlowBlock(channels, hidden, split_mode="channel", scale_map="sigmoid", net_actnorm=True)


def glow(
    in_channels: int = 3, size: int = 32, levels: int = 3, steps: int = 32, hidden: int = 512, grey: int = 256
) -> Glow:
    """By default of the size that Xiong et al. (2022) took, whose deepest latent variables for images of 32 x 32 are (48, 4, 4).
    They ran another implementation, with learned scales of the last convolutions and every other channel in a coupling."""
    return Glow(in_channels, size, levels, steps, hidden, grey)
