"""Any module that calls torchdiffeq, as a Classifier whose ODEs are solved here."""

import copy
from dataclasses import fields
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from odefend.errors import InvalidInput, unknown
from odefend.models.classifier import Classifier, Prediction
from odefend.models.redirect import Call, Redirection, redirected
from odefend.models.settings import SolverSettings
from odefend.solver import Tolerance
from odefend.tensors import Images, Index


class Adapted(Classifier):
    """A module from images to logits whose calls of torchdiffeq are carried out by `solver.solve`.

    `calls` says how, for the latest batch: see `models.redirect.Call`.
    """

    def __init__(self, module: nn.Module, in_channels: int, classes: int, chosen: dict[str, Any]) -> None:
        super().__init__(in_channels, classes)
        self.module, self.chosen = module, chosen
        self.training = module.training
        self.calls: list[Call] = []
        self._manners: WeakKeyDictionary = WeakKeyDictionary()

    def at(self, tolerance: Tolerance | None = None, **settings: Any) -> "Adapted":
        """A view that shares the weights and solves at another tolerance (a float, (rtol, atol), or one value per
        image), or with others of the `SolverSettings`. What is never chosen stays as the module itself asks for."""
        if tolerance is not None:
            settings["tolerance"] = tolerance
        if "method" in settings:
            settings.setdefault("step", None)
        return self._view(self.chosen | settings)

    def rows(self, index: Index) -> "Adapted":
        if not {"tolerance", "adjoint_tolerance"} & set(self.chosen):
            return self
        settings = SolverSettings(**self.chosen)
        subset = settings.rows(index)
        return self if subset is settings else self._view({name: getattr(subset, name) for name in self.chosen})

    def _view(self, chosen: dict[str, Any]) -> "Adapted":
        view = copy.copy(self)
        view.chosen, view._manners = _checked(chosen), self._manners
        return view

    def __getstate__(self) -> dict[str, Any]:
        # What was found out about fields in this process serves this process only.
        return super().__getstate__() | {"calls": [], "_manners": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state | {"_manners": WeakKeyDictionary()})

    def classify(self, images: Images) -> Prediction:
        redirection = Redirection(len(images), self.chosen, self._manners)
        with redirected(redirection):
            logits = self.module(images)
        self.calls = calls = redirection.calls
        if not calls:
            raise InvalidInput(
                f"module: expected {type(self.module).__name__} to call torchdiffeq's odeint or odeint_adjoint, it "
                "called neither."
            )
        if not isinstance(logits, Tensor) or logits.shape != (len(images), self.classes):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InvalidInput(f"module: expected logits of shape ({len(images)}, {self.classes}), got {found}.")
        work = [_for_images(call, len(images)) for call in calls]
        nfe, accepted, rejected, status = (torch.stack(parts) for parts in zip(*work, strict=True))
        return Prediction(logits, nfe.sum(0), accepted.sum(0), rejected.sum(0), status.amax(0))


def adapt(module: nn.Module, *, in_channels: int, classes: int, **settings: Any) -> Adapted:
    """A Classifier from a module that turns images (N, in_channels, H, W) in [0, 1] into logits (N, classes) and calls
    torchdiffeq on the way, however it imported it. The module stays as it is; its solves are carried out by
    `solver.solve`, each image with its own steps wherever the state has a row for each image.

    settings: any of `SolverSettings` but `compiled` and `t1`, as for `Adapted.at`; what is left out stays as the module asks
    for it, gradients included: "torchdiffeq" for odeint, "adjoint" for odeint_adjoint, whose error is each image's own, so that
    gradients are torchdiffeq's with coupling "batch" only.

    A field written for one time is tried out once, to find how it can be called at a time for each image; `calls` says
    what was found. A state that is a tuple, has no row for each image, or whose rows depend on each other (batch norm in
    training mode), is solved with coupling "batch", where an image's answer depends on its neighbours. A field that is
    no module is tried out at every call. What the module runs in threads of its own, or again in a backward pass
    (torch.utils.checkpoint), is not redirected.

    Raises InvalidInput at the first prediction if the module never calls torchdiffeq, or with options that steer its
    steps, events, or a method that is not in `models.redirect.OWN_METHODS`.
    """
    return Adapted(module, in_channels, classes, _checked(settings))


def _checked(chosen: dict[str, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(SolverSettings) if field.name not in ("compiled", "t1")]
    for name in chosen:
        if name not in known:
            raise unknown("setting", name, known)
    SolverSettings(**chosen)  # raises for wrong values
    return chosen


def _for_images(call: Call, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The work of a call, and its status, told for each image."""
    stats, status = call.solution.stats, call.solution.status

    def told(count: Tensor) -> Tensor:
        # Without a row for each image there is one for all of them together.
        return count if len(count) == batch else count.amax().expand(batch)

    return told(stats.nfe), told(stats.accepted), told(stats.rejected), told(status)
