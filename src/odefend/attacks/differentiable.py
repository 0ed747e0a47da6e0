"""Gradients for what has none: straight-through estimates, and smooth twins of JPEG and of the median and mean filters.

Backward pass differentiable approximation (BPDA): Athalye et al., arXiv 1802.00420.
"""

import io
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from odefend.errors import InvalidInput
from odefend.tensors import Images


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exact: Tensor, smooth: Tensor) -> Tensor:  # noqa: ARG004
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: ARG004
        return None, grads[0]


def straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    """The values of `exact` with the gradient of `smooth`, which has the same shape and should be near it."""
    if exact.shape != smooth.shape:
        raise InvalidInput(f"straight_through: expected two of one shape, got {exact.shape} and {smooth.shape}.")
    return _StraightThrough.apply(exact.detach().to(smooth), smooth)


def median(images: Images, size: int) -> Images:
    """The median over size x size pixels, edges repeated; the gradient goes to the pixel that is the median."""
    return _windows(images, size).median(-1).values


def mean(images: Images, size: int) -> Images:
    """The mean over size x size pixels, edges repeated."""
    return _windows(images, size).mean(-1)


def jpeg(images: Images, quality: int) -> Images:
    """Compression by JPEG without subsampling of colour, and decoded again; rounding is straight-through.

    Images (N, 1 or 3, H, W). Its values differ from those of libjpeg by less than one of 255 levels on average, and by more
    than ten where a coefficient happens to be rounded the other way.
    """
    luminance, chrominance = _tables(quality)
    height, width = images.shape[2:]
    padded = F.pad(255 * images, (0, -width % 8, 0, -height % 8), mode="replicate")
    colour = images.shape[1] == 3
    planes = _mixed(padded, _TO_YCBCR) if colour else padded
    planes = _rounded(planes + _OFFSET.to(planes).view(-1, 1, 1)[: images.shape[1]]) - 128
    tables = torch.stack([luminance, chrominance, chrominance][: images.shape[1]]).to(images)
    planes = _rounded(_through_blocks(planes, tables) + 128).clamp(0, 255)
    if colour:
        planes = _mixed(planes - _OFFSET.to(planes).view(-1, 1, 1), _TO_YCBCR.inverse())
    return (_rounded(planes).clamp(0, 255) / 255)[..., :height, :width]


SMOOTH: dict[str, Callable[..., Images]] = {
    "median": median,
    "mean": mean,
    "jpeg": lambda images, quality, *_: jpeg(images, quality),
}
"""Differentiable twins of families of tampering, called with the images and the tampering's values."""


_TO_YCBCR = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=torch.float64
)
"""From R, G, B to Y, Cb, Cr (JFIF 1.02)."""

_OFFSET = torch.tensor([0.0, 128.0, 128.0])


def _windows(images: Images, size: int) -> Tensor:
    """The size x size pixels around each, (N, C, H, W, size^2)."""
    half = size // 2
    padded = F.pad(images, (half, half, half, half), mode="replicate")
    return padded.unfold(2, size, 1).unfold(3, size, 1).flatten(-2)


def _rounded(values: Tensor) -> Tensor:
    return straight_through(values.round(), values)


def _mixed(planes: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("oc,nchw->nohw", matrix.to(planes), planes)


def _through_blocks(planes: Tensor, tables: Tensor) -> Tensor:
    """Each 8 x 8 block to cosines, divided by its table (planes, 8, 8), rounded, and all the way back."""
    cosines = _cosines().to(planes)
    blocks = planes.unfold(2, 8, 8).unfold(3, 8, 8)  # (N, C, rows, columns, 8, 8)
    tables = tables[:, None, None]
    found = _rounded(cosines @ blocks @ cosines.T / tables) * tables
    return (cosines.T @ found @ cosines).transpose(3, 4).reshape(planes.shape)


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """The orthonormal discrete cosine transform of 8 values."""
    k, n = torch.arange(8.0, dtype=torch.float64).view(-1, 1), torch.arange(8.0, dtype=torch.float64)
    rows = torch.cos((2 * n + 1) * k * math.pi / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows


@lru_cache(maxsize=32)
def _tables(quality: int) -> tuple[Tensor, Tensor]:
    """The tables for luminance and chrominance, from what Pillow writes."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality, subsampling=0)
    tables = Image.open(file, formats=("JPEG",)).quantization  # type: ignore[attr-defined]
    luminance, chrominance = (torch.tensor(tables[number], dtype=torch.float64).view(8, 8) for number in (0, 1))
    return luminance, chrominance
