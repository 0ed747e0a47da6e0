"""Decoding picture files, and keeping what was decoded."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from odefend.download import cache
from odefend.errors import DataError, OutputError
from odefend.files import make_folder, write_atomically

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm")
THREADS = 4


def decode(path: Path, size: tuple[int, int] | None = None, *, grey: bool = False) -> np.ndarray:
    """The picture as uint8 (C, H, W), with C = 3, or 1 if `grey`, without its transparency if it has one; scaled (bicubic)
    to `size` = (H, W) if that is given.

    Raises DataError, which names the file, where it is no picture, or truncated or damaged.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode[0] in "IF":
                raise DataError(f"{path}: expected 8 bits for each channel, got more ({picture.mode}). Convert it.")
            picture = picture.convert("L" if grey else "RGB")
            if size and (picture.height, picture.width) != size:
                picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
            return to_array(picture)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture in a format that Pillow knows. Remove it or convert it.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: truncated or damaged ({error}). Remove it or fetch it again.") from error


def to_array(picture: Image.Image) -> np.ndarray:
    """An RGB or grey picture as uint8 (C, H, W)."""
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_picture(pixels: np.ndarray) -> Image.Image:
    """uint8 (C, H, W) as an RGB or grey picture."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def decode_all(files: Sequence[Path], size: tuple[int, int] | None = None, *, grey: bool = False) -> Tensor:
    """Pictures of one size as uint8 (N, C, H, W). Raises DataError where sizes differ and none is asked for."""
    with ThreadPoolExecutor(THREADS) as pool:
        arrays = list(pool.map(lambda path: decode(path, size, grey=grey), files))
    for path, array in zip(files, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise DataError(
                f"{path}: expected {arrays[0].shape[2]}x{arrays[0].shape[1]} pixels as in {files[0].name}, got "
                f"{array.shape[2]}x{array.shape[1]}. Give a size that all pictures are scaled to."
            )
    return torch.from_numpy(np.stack(arrays))


def decode_once(name: str, files: Sequence[Path]) -> Tensor:
    """As `decode_all`, kept in the cache under `name` and taken from there as long as the files have the same names, sizes
    and times of change."""
    facts = [(path, path.stat()) for path in files]
    listing = "\n".join(f"{path.name} {fact.st_size} {fact.st_mtime_ns}" for path, fact in facts) + PIL.__version__
    kept = cache() / "decoded" / f"{name}-{hashlib.sha256(listing.encode()).hexdigest()[:16]}.npy"
    if kept.exists():
        try:
            return torch.from_numpy(np.load(kept, allow_pickle=False))
        except (OSError, ValueError, EOFError):  # a damaged cache is no loss
            kept.unlink(missing_ok=True)
    pixels = decode_all(files)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.save(file, pixels.numpy())

    with suppress(OutputError):  # a cache that cannot be written is no loss
        make_folder(kept.parent)
        write_atomically(kept, write)
    return pixels
