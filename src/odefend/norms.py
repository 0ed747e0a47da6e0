"""Norms of perturbations, as values: an attack takes the norm it measures with as an argument.

`RMS` is what Foolbox 1.8/2.0 calls L2 in its iterative attacks, and so what Carrara et al. (WIFS 2019) report as
"L2": the root of the *mean* square. RMS = L2 / sqrt(number of elements).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from odefend.tensors import Images, PerImage

Radius = Float[Tensor, "batch 1 1 1"]


@runtime_checkable
class Norm(Protocol):
    """A norm over all elements of each image."""

    @property
    def name(self) -> str:
        """The name in tables and settings."""
        ...

    def size(self, delta: Images) -> PerImage:
        """The norm of each perturbation."""
        ...

    def steepest(self, gradient: Images) -> Images:
        """The direction of norm 1 along which a linear loss rises fastest; a zero gradient stays zero."""
        ...

    def project(self, delta: Images, epsilon: float | Radius) -> Images:
        """The perturbation brought back into the ball of radius `epsilon`, which may be one for each image, (N, 1, 1, 1)."""
        ...

    def ball(self, uniform: Images, normal: Images, radius: Radius) -> Images:
        """A point of the unit ball, uniformly distributed, made of independent noise: `uniform` in [-1, 1] and
        standard `normal` of the images' shape, `radius` uniform in [0, 1] of shape (N, 1, 1, 1)."""
        ...


def dual(norm: Norm, gradient: Images) -> PerImage:
    """How fast a linear loss with that gradient rises along the direction of norm 1 along which it rises fastest."""
    return (gradient * norm.steepest(gradient)).flatten(1).sum(1)


_WITHIN = 1 - 1e-12
"""So much shorter than its radius is what is scaled down, lest its norm, computed anew in float64, be a rounding error longer."""


def confined(norm: Norm, clean: Images, moved: Images, epsilon: float) -> Images:
    """`moved` brought into the ball of radius `epsilon` around `clean`, and into [0, 1].

    No rounding leaves the ball: what was added, as float64 has it, is never longer than `epsilon`. Images that are inside
    stay as they are, bit for bit.
    """
    delta = moved.double() - clean.double()
    inside = norm.project(delta, epsilon)
    return torch.where(inside == delta, moved.clamp(0, 1), added(clean, inside))


def added(clean: Images, delta: Images) -> Images:
    """`clean` plus a perturbation in float64, in the precision of `clean` and in [0, 1]: no element is rounded away from
    `clean`, so that what was added is no longer than `delta` in any norm."""
    moved = (clean.double() + delta).to(clean).clamp(0, 1)
    away = (moved.double() - clean.double()).abs() > delta.abs()
    return torch.where(away, torch.nextafter(moved, clean), moved)


@dataclass(frozen=True)
class MaxNorm:
    """The largest absolute change of any element."""

    name: str = "linf"

    def size(self, delta: Images) -> PerImage:
        """The norm of each perturbation."""
        return delta.flatten(1).abs().amax(1)

    def steepest(self, gradient: Images) -> Images:
        """The sign of the gradient."""
        return gradient.sign()

    def project(self, delta: Images, epsilon: float | Radius) -> Images:
        """Clipped to [-epsilon, epsilon]."""
        if isinstance(epsilon, Tensor):
            return torch.minimum(torch.maximum(delta, -epsilon), epsilon)
        return delta.clamp(-epsilon, epsilon)

    def ball(self, uniform: Images, normal: Images, radius: Radius) -> Images:  # noqa: ARG002
        """The uniform noise itself."""
        return uniform


@dataclass(frozen=True)
class EuclideanNorm:
    """Root of the sum, or with `mean` of the mean, of squares over all elements."""

    name: str
    mean: bool

    def size(self, delta: Images) -> PerImage:
        """The norm of each perturbation."""
        length = delta.flatten(1).norm(dim=1)
        return length / delta[0].numel() ** 0.5 if self.mean else length

    def steepest(self, gradient: Images) -> Images:
        """The gradient divided by its norm."""
        # Scaled by its largest element first, or the squares of a tiny gradient would vanish.
        largest = gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
        scaled = gradient / torch.where(largest > 0, largest, 1)
        size = self.size(scaled).view(-1, 1, 1, 1)
        return scaled / torch.where(size > 0, size, 1)

    def project(self, delta: Images, epsilon: float | Radius) -> Images:
        """Scaled down where it is longer than `epsilon`."""
        size = self.size(delta).view(-1, 1, 1, 1)
        return torch.where(size > epsilon, delta * (_WITHIN * epsilon / torch.where(size > 0, size, 1)), delta)

    def ball(self, uniform: Images, normal: Images, radius: Radius) -> Images:  # noqa: ARG002
        """A random direction, its length distributed as the volume asks."""
        return self.steepest(normal) * radius ** (1 / normal[0].numel())


LINF = MaxNorm()
L2 = EuclideanNorm("l2", mean=False)
RMS = EuclideanNorm("rms", mean=True)

NORMS: dict[str, Norm] = {norm.name: norm for norm in (LINF, L2, RMS)}
