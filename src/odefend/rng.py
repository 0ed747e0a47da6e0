"""Random draws that are pure functions of (seed, image id, purpose, index).

Nothing draws from global state, so a result is the same for any batch size, order, shard or device count. The
streams are Philox (counter-based; Salmon et al. 2011, doi 10.1145/2063384.2063405), keyed by a BLAKE2b digest.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def stream(seed: int, name: str, purpose: str, index: int = 0) -> np.random.Generator:
    """The generator that belongs to these four; asking twice gives the same numbers twice."""
    text = "\x1f".join((str(seed), name, purpose, str(index)))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def _per_image(
    draw: Callable[[np.random.Generator], np.ndarray | float],
    seed: int,
    ids: Sequence[str],
    purpose: str,
    index: int,
    shape: tuple[int, ...],
) -> Tensor:
    drawn = [np.asarray(draw(stream(seed, name, purpose, index))) for name in ids]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.zeros(0, *shape, dtype=torch.float64)


def uniform(seed: int, ids: Sequence[str], purpose: str, index: int = 0, shape: tuple[int, ...] = ()) -> Tensor:
    """Uniform numbers in [0, 1), float64, of shape (len(ids), *shape)."""
    return _per_image(lambda generator: generator.random(shape), seed, ids, purpose, index, shape)


def normal(seed: int, ids: Sequence[str], purpose: str, index: int = 0, shape: tuple[int, ...] = ()) -> Tensor:
    """Standard normal numbers, float64, of shape (len(ids), *shape)."""
    return _per_image(lambda generator: generator.standard_normal(shape), seed, ids, purpose, index, shape)


def content_ids(images: Tensor) -> list[str]:
    """An id for each image made of its own bytes, for images that come without one."""
    return [_content_id(image) for image in images.detach().cpu()]


def _content_id(image: Tensor) -> str:
    """Of an image's numbers as float64, so many at a time: a large one need not be there in another type as a whole."""
    digest = hashlib.blake2b(digest_size=12)
    for part in image.flatten().split(1 << 20):
        digest.update(part.double().numpy().tobytes())
    return digest.hexdigest()
