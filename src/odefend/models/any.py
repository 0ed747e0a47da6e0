"""Anybody's net as a Classifier: a module that calls torchdiffeq, a plain one, or one of odefend's own."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from odefend.errors import InvalidInput, OdefendError
from odefend.models.adapt import adapt
from odefend.models.carry import Redirection
from odefend.models.catalogue import load
from odefend.models.classifier import Classifier, Prediction, no_work
from odefend.models.layers import TwoLogits
from odefend.models.redirect import install, redirected
from odefend.named import is_own, own, source_digest, told
from odefend.tensors import Images

SIDES = (28, 32, 8, 64, 96, 224, 16)
"""Sizes of pictures that are tried where nobody says one."""


class Plain(Classifier):
    """A module from images to logits that odefend only asks: whatever it solves, it solves itself."""

    def __init__(self, module: nn.Module, in_channels: int, classes: int) -> None:
        super().__init__(in_channels, classes)
        self.module = module
        self.training = module.training

    def classify(self, images: Images) -> Prediction:
        return no_work(self.module(images))


class Wrapped(nn.Module):
    """A user's module between what odefend has and what odefend wants: images in [0, 1] are brought to `span` and normalized by
    `mean` and `std`, and of what comes out the logits are taken, two of them where there is one."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, module: nn.Module, mean: Sequence[float], std: Sequence[float], span: tuple[float, float]
    ) -> None:
        super().__init__()
        self.module, self.span, self.normalizes = module, span, bool(mean or std)
        self.register_buffer("mean", torch.tensor(list(mean) or [0.0]).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std) or [1.0]).view(1, -1, 1, 1), persistent=False)
        self.two_logits = TwoLogits()
        self.training = module.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes)."""
        low, high = self.span
        if self.span != (0.0, 1.0):
            images = low + (high - low) * images
        if self.normalizes:
            images = (images - self.mean) / self.std
        logits = logits_of(self.module(images))
        return self.two_logits(logits) if logits.shape in ((len(images),), (len(images), 1)) else logits


def logits_of(output: Any) -> Tensor:
    """The logits in what a module gives: a tensor, an object with `logits`, a dict with them, or a tuple that begins with them."""
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    raise InvalidInput(
        f"module: expected logits, something with .logits, or a tuple that begins with them, got {type(output).__name__}. "
        "Wrap it in a module whose forward gives the logits alone."
    )


def as_classifier(
    module: nn.Module,
    *,
    in_channels: int | None = None,
    classes: int | None = None,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    range: tuple[float, float] = (0.0, 1.0),
    **settings: Any,
) -> Classifier:
    """Anybody's net as a Classifier of images (N, in_channels, H, W) in [0, 1]. It is put into evaluation mode.

    A module that calls torchdiffeq (0.2.4 or newer) is adapted: its ODEs are solved by `solver.solve`, with any of the
    `SolverSettings` in `settings`, as by `adapt`. One that solves otherwise, with a vendored or older torchdiffeq or another
    library, is a plain net: it has no tolerance to choose. A Classifier is given back as it is.

    `in_channels`, `classes` and the `size` of a picture are found by a trial batch of grey pictures where they are not given.
    `range`: what the net takes pixels from 0 to 1 as; then `mean` and `std`, one for each channel or one for all, are applied. Its
    output may be logits (N, classes), an object or dict with `logits`, a tuple that begins with them, or one logit for two classes.

    Raises InvalidInput where no trial batch goes through, or where it gives no logits.
    """
    if isinstance(module, Classifier):
        if mean or std or settings or range != (0.0, 1.0):
            raise InvalidInput(
                "mean, std, range and settings: expected none for a Classifier, which has its own. Give them for a module alone."
            )
        return module.eval()
    wrapped = Wrapped(module.eval(), mean, std, range).eval()
    channels, logits, solves = _tried(wrapped, in_channels, size, settings)
    found = logits.shape[1] if logits.ndim == 2 else None
    if found is None or len(logits) != 2 or (classes is not None and classes != found):
        raise InvalidInput(
            f"module: expected logits of shape (2, {classes or 'classes'}) for two images, got {tuple(logits.shape)}. Wrap it "
            "in a module whose forward gives the logits alone."
        )
    if solves:
        return adapt(wrapped, in_channels=channels, classes=found, **settings)
    if settings:
        raise InvalidInput(
            f"{', '.join(settings)}: expected none for {type(module).__name__}, which does not call torchdiffeq 0.2.4 or "
            "newer, so that odefend solves nothing in it."
        )
    return Plain(wrapped, channels, found)


def _tried(
    module: Wrapped, in_channels: int | None, size: int | tuple[int, int] | None, settings: Mapping[str, Any]
) -> tuple[int, Tensor, bool]:
    """(channels, logits of two grey pictures, whether torchdiffeq was called) at the first size that goes through."""
    failed: Exception | None = None
    redirects = _redirects(type(module.module).__name__)
    for shape in _shapes(module, in_channels, size):
        carry = Redirection(2, dict(settings), WeakKeyDictionary())
        images = torch.full((2, *shape), 0.5, device=next((one.device for one in module.parameters()), None))
        try:
            with torch.no_grad():
                if not redirects:
                    return shape[0], module(images), False
                with redirected(carry):
                    return shape[0], module(images), bool(carry.carried)
        except OdefendError:
            raise
        except Exception as error:
            failed = failed or error
    assert failed is not None  # there is a shape to try
    raise InvalidInput(
        f"module: expected {type(module.module).__name__} to take a batch of pictures; tried two grey ones, and it raised "
        f"{told(failed)}. "
        "Say in_channels=... and size=... of a picture."
    ) from failed


def _redirects(name: str) -> bool:
    """Whether calls of torchdiffeq can be carried out here; a warning where it is there and too old."""
    if "torchdiffeq" not in sys.modules:
        return False
    try:
        install()
    except InvalidInput as error:
        warnings.warn(f"{name} is taken as a plain net, which solves its ODEs itself. {error}", stacklevel=4)
        return False
    return True


def _shapes(
    module: nn.Module, in_channels: int | None, size: int | tuple[int, int] | None
) -> list[tuple[int, int, int]]:
    """(channels, height, width) to try, the likely ones first."""
    convolution = next((one for one in module.modules() if isinstance(one, nn.Conv2d)), None)
    channels = [in_channels] if in_channels else [convolution.in_channels] if convolution else [1, 3]
    sides = [(one, one) for one in SIDES]
    if size is not None:
        sides = [(size, size) if isinstance(size, int) else size]
    return [(count, *side) for side in sides for count in channels]


def open_net(name: str, options: Mapping[str, Any] | None = None, wrap: Mapping[str, Any] | None = None) -> Classifier:
    """A net in evaluation mode by whatever name: of the zoo, the path of a checkpoint, or `file.py:callable` or
    `package.module:callable`, called with `options`; what it gives (or is, where it is a module) goes through `as_classifier` with
    `wrap`. `source` of such a net is the digest of its file.

    Raises InvalidInput where the callable raises or gives no module.
    """
    if not is_own(name):
        if options or wrap:
            given = ", ".join(options or wrap or {})
            raise InvalidInput(f"{name}: expected no options for a net of the zoo or a checkpoint, got {given}.")
        return load(name)
    made = own(name)
    if not isinstance(made, nn.Module):
        try:
            made = made(**(options or {}))
        except OdefendError:
            raise
        except Exception as error:
            given = ", ".join(options or {}) or "nothing"
            raise InvalidInput(f"{name}: called with {given}, it raised {told(error)}. Check options.") from error
    if not isinstance(made, nn.Module):
        raise InvalidInput(
            f"{name}: expected a torch.nn.Module or a callable that gives one, got {type(made).__name__}."
        )
    net = as_classifier(made, **(wrap or {}))
    net.source = source_digest(name)
    return net
