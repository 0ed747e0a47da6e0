"""The kinds of tampering with 8-bit pictures, each a value.

Median, mean, equalization and JPEG are those of Caldelli et al. (ICIP 2022), through the same functions of Pillow. The bits
of JPEG depend on the libjpeg that Pillow was built with.
"""

import io
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from odefend.errors import InvalidInput, unknown

SUBSAMPLINGS = {"444": 0, "422": 1, "420": 2}


@runtime_checkable
class Tampering(Protocol):
    """A way of changing a picture; `family` and the fields' values make its name, as in "jpeg-60-444"."""

    family: ClassVar[str]

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        """The picture changed, of the same size and mode. `donor` is another picture, for what takes from one."""
        ...


@dataclass(frozen=True)
class Median:
    """The median over size x size pixels, by channel."""

    size: int
    family: ClassVar[str] = "median"

    def __post_init__(self) -> None:
        _expect(3 <= self.size <= 99 and self.size % 2 == 1, "size", "an odd number, 3 ... 99", self.size)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.MedianFilter(self.size))


@dataclass(frozen=True)
class Mean:
    """The mean over size x size pixels, by channel."""

    size: int
    family: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        _expect(3 <= self.size <= 99 and self.size % 2 == 1, "size", "an odd number, 3 ... 99", self.size)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.BoxBlur(self.size // 2))


@dataclass(frozen=True)
class Equalize:
    """Histogram equalization, by channel."""

    family: ClassVar[str] = "equalize"

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        return ImageOps.equalize(picture)


@dataclass(frozen=True)
class JPEG:
    """Compressed at a quality of 1 ... 100, colour subsampled as "444" (not), "422" or "420", and decoded again."""

    quality: int
    subsampling: str = "444"
    family: ClassVar[str] = "jpeg"

    def __post_init__(self) -> None:
        _expect(1 <= self.quality <= 100, "quality", "1 ... 100", self.quality)
        if self.subsampling not in SUBSAMPLINGS:
            raise unknown("subsampling", self.subsampling, SUBSAMPLINGS)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        return _through_jpeg(picture, self.quality, self.subsampling)


@dataclass(frozen=True)
class DoubleJPEG:
    """Compressed twice, on the same grid of blocks."""

    first: int
    second: int
    subsampling: str = "420"
    family: ClassVar[str] = "double-jpeg"

    def __post_init__(self) -> None:
        for quality in (self.first, self.second):
            JPEG(quality, self.subsampling)  # raises for wrong values

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        once = _through_jpeg(picture, self.first, self.subsampling)
        return _through_jpeg(once, self.second, self.subsampling)


@dataclass(frozen=True)
class Resize:
    """Scaled by `factor` and back to the old size (bicubic)."""

    factor: float
    family: ClassVar[str] = "resize"

    def __post_init__(self) -> None:
        _expect(0.01 <= self.factor <= 16 and self.factor != 1, "factor", "0.01 ... 16, not 1", self.factor)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        small = tuple(max(1, round(side * self.factor)) for side in picture.size)
        return picture.resize((small[0], small[1]), Image.Resampling.BICUBIC).resize(
            picture.size, Image.Resampling.BICUBIC
        )


@dataclass(frozen=True)
class Rotate:
    """Turned by `degrees`, this way or that at random, and enlarged so that no corner is empty (bicubic)."""

    degrees: float
    family: ClassVar[str] = "rotate"

    def __post_init__(self) -> None:
        _expect(0.01 <= self.degrees <= 45, "degrees", "0.01 ... 45", self.degrees)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        angle = np.deg2rad(self.degrees) * (1 if draw.random() < 0.5 else -1)
        width, height = picture.size
        # The largest factor for which every corner still comes from within the picture.
        longer = max(width / height, height / width)
        shrink = 1 / (abs(np.cos(angle)) + longer * abs(np.sin(angle)))
        cos, sin, x, y = np.cos(angle) * shrink, np.sin(angle) * shrink, width / 2, height / 2
        back = (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)
        return picture.transform(picture.size, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of standard deviation `sigma` pixels."""

    sigma: float
    family: ClassVar[str] = "blur"

    def __post_init__(self) -> None:
        _expect(0.01 <= self.sigma <= 100, "sigma", "0.01 ... 100", self.sigma)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(self.sigma))


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of standard deviation `sigma` (of 255), by pixel and channel, rounded and clipped."""

    sigma: float
    family: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        _expect(0.01 <= self.sigma <= 100, "sigma", "0.01 ... 100", self.sigma)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        pixels = np.asarray(picture, np.float64)
        pixels = np.rint(pixels + self.sigma * draw.standard_normal(pixels.shape))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Sharpen:
    """An unsharp mask of radius 2 that adds `percent` of the difference."""

    percent: int
    family: ClassVar[str] = "sharpen"

    def __post_init__(self) -> None:
        _expect(1 <= self.percent <= 1000, "percent", "1 ... 1000", self.percent)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.UnsharpMask(2, self.percent, 0))


@dataclass(frozen=True)
class Gamma:
    """Every value x in 0 ... 255 becomes 255 (x / 255)^gamma."""

    gamma: float
    family: ClassVar[str] = "gamma"

    def __post_init__(self) -> None:
        _expect(0.01 <= self.gamma <= 100 and self.gamma != 1, "gamma", "0.01 ... 100, not 1", self.gamma)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        table = np.rint(255 * (np.arange(256) / 255) ** self.gamma).astype(int).tolist()
        return picture.point(table * len(picture.getbands()))


@dataclass(frozen=True)
class CopyMove:
    """A rectangle of `share` of each side copied to another place of the same picture, which it does not overlap."""

    share: float
    family: ClassVar[str] = "copy-move"

    def __post_init__(self) -> None:
        # Above a third there may be no place beside the first.
        _expect(0.01 <= self.share <= 1 / 3, "share", "0.01 ... 1/3", self.share)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        changed = picture.copy()
        width, height = (max(1, int(side * self.share)) for side in picture.size)
        if min(picture.size) < 3:
            raise InvalidInput(f"picture: expected at least 3x3 pixels, got {picture.width}x{picture.height}.")
        left, top = _corner(picture, width, height, draw)
        x, y = _corner(picture, width, height, draw)
        # Along one axis the places do not overlap, along the other they may.
        if draw.random() < 0.5:
            x = _apart(left, width, picture.width, draw)
        else:
            y = _apart(top, height, picture.height, draw)
        changed.paste(picture.crop((left, top, left + width, top + height)), (x, y))
        return changed


@dataclass(frozen=True)
class Splice:
    """A rectangle of `share` of each side pasted in from another picture."""

    share: float
    family: ClassVar[str] = "splice"

    def __post_init__(self) -> None:
        _expect(0.01 <= self.share <= 0.99, "share", "0.01 ... 0.99", self.share)

    def apply(self, picture: Image.Image, draw: np.random.Generator, donor: Image.Image) -> Image.Image:
        changed = picture.copy()
        width, height = (max(1, int(side * self.share)) for side in picture.size)
        left, top = _corner(donor, width, height, draw)
        changed.paste(donor.crop((left, top, left + width, top + height)), _corner(picture, width, height, draw))
        return changed


def _expect(right: bool, name: str, expected: str, got: object) -> None:
    if not right:
        raise InvalidInput(f"{name}: expected {expected}, got {got}.")


def _through_jpeg(picture: Image.Image, quality: int, subsampling: str) -> Image.Image:
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=quality, subsampling=SUBSAMPLINGS[subsampling])
    with Image.open(stored, formats=("JPEG",)) as again:
        return again.convert(picture.mode)


def _corner(picture: Image.Image, width: int, height: int, draw: np.random.Generator) -> tuple[int, int]:
    """Where a rectangle may lie in a picture."""
    if picture.width < width or picture.height < height:
        raise InvalidInput(f"donor: expected at least {width}x{height} pixels, got {picture.width}x{picture.height}.")
    return int(draw.integers(picture.width - width + 1)), int(draw.integers(picture.height - height + 1))


def _apart(start: int, length: int, whole: int, draw: np.random.Generator) -> int:
    """Where a piece may lie on an axis so as not to touch the one at `start`; there is such a place if
    3 * length <= whole."""
    before, after = max(0, start - length + 1), max(0, whole - 2 * length - start + 1)
    chosen = int(draw.integers(before + after))
    return chosen if chosen < before else start + length + chosen - before
