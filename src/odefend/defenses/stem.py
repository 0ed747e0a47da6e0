"""Stems that are affine in the image, y = W x + b, and how far they carry a change of it: upper bounds of ||W||_2 that hold."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp

from odefend.errors import InvalidInput
from odefend.models.layers import Normalize
from odefend.tensors import Images, State

EXACT = 1024
"""Largest number of pixels and channels for which ||W||_2 is computed from W itself."""

GRID = 64
"""Frequencies by axis at which a convolution's response is looked at."""

ROUNDING = 1e-9
"""What bounds are raised by, relatively: far more than the rounding errors of eigenvalues in float64, some 1e-12."""


def affine(stem: nn.Module, images: Images) -> State:
    """What an affine stem makes of the images, in float64; differentiable."""
    tensors = {name: value.double() for name, value in (*stem.named_parameters(), *stem.named_buffers())}
    return functional_call(stem, tensors, (images.double(),))


def check_affine(stem: nn.Module) -> None:
    """Raise InvalidInput unless the stem consists of layers that are known to be affine. Trying it out would prove nothing."""
    if type(stem) is nn.Sequential:
        for layer in stem:
            check_affine(layer)
    elif type(stem) not in (nn.Conv2d, nn.Linear, nn.Flatten, nn.Identity, Normalize):
        raise InvalidInput(
            f"stem: expected one that is affine in the image (convolutions, linear layers, constant normalization), got "
            f"{type(stem).__name__}. Add the noise to the image: where='input'."
        )


@torch.no_grad()
def stem_norm(stem: nn.Module, shape: tuple[int, int, int]) -> float:
    """An upper bound of ||W||_2, so that images (channels, height, width) = `shape` that differ by r in L2 have states that
    differ by at most r times this.

    Up to EXACT elements it is the largest singular value itself, the root of the largest eigenvalue of W^T W; power iteration
    would come from below, and a radius divided by its result would be too large. Of larger images it is the product of bounds
    of the layers; that of a convolution holds for any size of image, and larger images come near it. Raises InvalidInput for
    stems that are not known to be affine, and for large images and convolutions with groups, dilation or padding other than
    by zeros.
    """
    check_affine(stem)
    norm = _exact(stem, shape) if math.prod(shape) <= EXACT else _bound(stem)
    return norm * (1 + ROUNDING)


def _exact(stem: nn.Module, shape: tuple[int, int, int]) -> float:
    device = next(iter((*stem.parameters(), *stem.buffers())), torch.zeros(0)).device
    offset = affine(stem, torch.zeros(1, *shape, device=device))

    def linear(images: Images) -> State:
        return affine(stem, images) - offset

    rows = []
    for basis in torch.eye(math.prod(shape), dtype=torch.float64, device=device).split(64):
        change, transposed = vjp(linear, basis.view(-1, *shape))[:2]
        rows.append(transposed(change)[0].flatten(1).detach())
    return math.sqrt(max(float(torch.linalg.eigvalsh(torch.cat(rows))[-1]), 0.0))


def _bound(layer: nn.Module) -> float:
    if isinstance(layer, nn.Sequential):
        return math.prod(_bound(one) for one in layer)
    if isinstance(layer, Normalize):
        return float((1 / layer.std.double()).abs().max())
    if isinstance(layer, nn.Linear):
        return float(torch.linalg.matrix_norm(layer.weight.double(), 2))
    return conv_bound(layer) if isinstance(layer, nn.Conv2d) else 1.0


def conv_bound(conv: nn.Conv2d) -> float:
    """An upper bound of a convolution's operator norm on images of any size, padded with zeros.

    Such a convolution is a part, some rows and columns, of that on the unbounded plane, so its norm is no larger. There
    stride s makes a convolution of stride 1 out of it whose channels are the s x s shifts of the old ones, and the norm is the
    largest singular value of its frequency response K(a, b), over all frequencies (Sedghi et al., arXiv 1805.10408, on the
    circle). These are looked at on a grid of N x N. Between its points: for each vector u, |K(a, b) u|^2 is a trigonometric
    polynomial of degree d = m - 1 in a and in b, m being the kernel's size, and such a polynomial stays above
    cos(d pi / N) times its maximum within pi / N of it (M. Riesz, 1914).
    """
    if conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros":
        raise InvalidInput(
            f"stem: expected a convolution without groups and dilation, padded with zeros, for images of more than {EXACT} "
            f"elements, got groups {conv.groups}, dilation {conv.dilation}, padding {conv.padding_mode}."
        )
    kernel = _of_stride_one(conv.weight.double(), *conv.stride)
    grid = max(GRID, *(8 * size for size in kernel.shape[2:]))
    response = torch.fft.rfft2(kernel, s=(grid, grid)).permute(2, 3, 0, 1)
    largest = torch.linalg.eigvalsh(response.mH @ response)[..., -1].max()
    for size in kernel.shape[2:]:
        largest = largest / math.cos(math.pi * (size - 1) / grid)
    return math.sqrt(max(float(largest), 0.0))


def _of_stride_one(kernel: Tensor, down: int, across: int) -> Tensor:
    """The kernel of the same convolution in stride 1, of the down x across shifts of the channels."""
    height, width = kernel.shape[2:]
    kernel = F.pad(kernel, (0, -width % across, 0, -height % down))
    return kernel.unflatten(3, (-1, across)).unflatten(2, (-1, down)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
