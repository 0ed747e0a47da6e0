"""Decoding picture files, and keeping what was decoded."""

import hashlib
import io
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from odefend.download import cache
from odefend.errors import DataError, OutputError
from odefend.files import make_folder, write_atomically

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm")
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
"""What is opened, whatever a file is called. Pillow goes by what is in it, knows more formats, and gives PostScript to Ghostscript,
which runs it as a program."""

MOST_BYTES, MOST_PIXELS = 1 << 28, 1 << 26
"""Of a picture: 268 million and 67 million, which take half a gigabyte while they are decoded."""

MOST_SCANS, MOST_TILES, MOST_SLOW = 100, 1 << 16, 1 << 18
"""Scans of a progressive JPEG, each of which goes over all pixels; parts of a TIFF; pixels and bytes of what Pillow decodes in
Python: plain PGM and PPM, and BMP with runs. A hundred bytes of these can be a minute's work."""

THREADS = 4
LARGE = 1 << 22
_one_large = threading.Lock()


def decode(path: Path, size: tuple[int, int] | None = None, *, grey: bool = False) -> np.ndarray:
    """The picture as uint8 (C, H, W), with C = 3, or 1 if `grey`, without its transparency if it has one; scaled (bicubic)
    to `size` = (H, W) if that is given.

    Raises DataError, which names the file, where it is no picture in one of FORMATS, is truncated or damaged, or takes more
    memory or time than a picture may.
    """
    content = _content(path)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            _check(path, picture, content)
            if picture.width * picture.height <= LARGE:
                return _pixels(picture, size, grey=grey)
            with _one_large:
                return _pixels(picture, size, grey=grey)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture in {', '.join(FORMATS)}. Remove it or convert it.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: expected at most {MOST_PIXELS:,} pixels: {error} Make it smaller.") from error
    except Exception as error:  # a damaged picture raises whatever its first wrong byte happens to mean
        raise DataError(f"{path}: truncated or damaged ({error}). Remove it or fetch it again.") from error


def _content(path: Path) -> bytes:
    """What is in a file that may be a picture."""
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file.")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise DataError(
                f"{path}: expected a picture of at most {MOST_BYTES:,} bytes, got {size:,}. Make it smaller."
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _check(path: Path, picture: Image.Image, content: bytes) -> None:
    """Raise DataError for a picture, opened and not decoded yet, that is not one of 8 bits, or takes too much memory or time."""
    pixels, tiles = picture.width * picture.height, getattr(picture, "tile", ())
    if picture.mode[0] in "IF" or any(map(_wide, tiles)):
        raise DataError(f"{path}: expected 8 bits for each channel, got more ({picture.mode}). Convert it.")
    if pixels > MOST_PIXELS:
        raise DataError(
            f"{path}: expected at most {MOST_PIXELS:,} pixels, got {picture.width} x {picture.height}. Make it smaller."
        )
    slow = bool(tiles) and tiles[0][0] in Image.DECODERS  # those registered there are written in Python
    scans = content.count(b"\xff\xda") if picture.format in ("JPEG", "MPO") else 0
    if (slow and max(pixels, len(content)) > MOST_SLOW) or scans > MOST_SCANS or len(tiles) > MOST_TILES:
        raise DataError(f"{path}: stored in a way that takes too long to decode. Save it anew, as PNG.")


def _wide(tile: Any) -> bool:
    """Whether a part of a picture has more than 8 bits for a channel, of which Pillow would take the upper ones: of colours it
    tells so by nothing but how they are stored, "RGB;16B", or with a largest value in a PPM."""
    stored, *more = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
    return re.search(r";16[BLN]", str(stored)) is not None or (tile[0].startswith("ppm") and more[0] > 255)


def _pixels(picture: Image.Image, size: tuple[int, int] | None, *, grey: bool) -> np.ndarray:
    mode = "L" if grey else "RGB"
    picture.load()
    if picture.mode != mode:
        picture = picture.convert(mode)
    if size and (picture.height, picture.width) != size:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return to_array(picture)


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
