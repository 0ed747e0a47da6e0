"""Any module that calls torchdiffeq, as a Classifier whose ODEs are solved here."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from odefend.errors import InvalidInput, unknown
from odefend.models.carry import Call, Carried, Redirection
from odefend.models.classifier import Prediction, check_images
from odefend.models.redirect import redirected
from odefend.models.settings import SolverSettings, decisive
from odefend.models.solving import Solving, Steps, steps_of
from odefend.solver import METHODS, Tolerance
from odefend.tensors import Images, Index, Logits, PerImage


class Adapted(Solving):
    """A module from images to logits whose calls of torchdiffeq are carried out by `solver.solve`.

    `calls` says how, for the latest batch: see `models.carry.Call`.
    """

    def __init__(self, module: nn.Module, in_channels: int, classes: int, chosen: dict[str, Any]) -> None:
        super().__init__(in_channels, classes)
        self.module, self.chosen = module, chosen
        self.training = module.training
        self.calls: list[Call] = []
        self._manners: WeakKeyDictionary = WeakKeyDictionary()

    def at(self, tolerance: Tolerance | None = None, **settings: Any) -> "Adapted":
        """As for `Solving.at`. What is never chosen stays as the module itself asks for; a chosen `t1` ends every solve in
        place of the last time that the module asks for."""
        if tolerance is not None:
            settings["tolerance"] = tolerance
        if "method" in settings:
            settings.setdefault("step", None)
        return self._view(self.chosen | settings)

    def rows(self, index: Index) -> "Adapted":
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

    @property
    def tolerance(self) -> Tolerance | None:
        return self.chosen.get("tolerance")

    @property
    def method(self) -> str | None:
        return self.chosen.get("method")

    @property
    def solved(self) -> dict[str, Any]:
        return decisive(self.chosen)

    def classify(self, images: Images) -> Prediction:
        logits, carried = self._run(images)
        self.calls = calls = [one.bare for one in carried]
        work = [_for_images(call, len(images)) for call in calls]
        nfe, accepted, rejected, status = (torch.stack(parts) for parts in zip(*work, strict=True))
        return Prediction(logits, nfe.sum(0), accepted.sum(0), rejected.sum(0), status.amax(0))

    def steps(self, images: Images) -> Steps:
        carried = self._watched(images, "steps")
        return steps_of([one.call.solution for one in carried], [one.step_errors() for one in carried])

    def effort(self, images: Tensor, grid: int = 8) -> PerImage:
        return torch.stack([one.effort(grid) for one in self._watched(images, "effort")]).sum(0)

    def _watched(self, images: Tensor, asking: str) -> Sequence[Carried]:
        """The module's solves, with logs, where each image has its own steps, and not fixed ones."""
        check_images(images, self.in_channels)
        _, carried = self._run(images, log=True)
        for call in (one.call for one in carried):
            if call.coupling == "batch" or not METHODS[call.method].adaptive:
                found = "steps shared by the batch" if call.coupling == "batch" else f"fixed steps ({call.method})"
                raise InvalidInput(
                    f"{asking}: expected each image to have steps of its own by step control, got {found}."
                )
        return carried

    def _run(self, images: Images, *, log: bool = False) -> tuple[Logits, list[Carried]]:
        """The module's logits for images, and its solves on the way."""
        redirection = Redirection(len(images), self.chosen, self._manners, log)
        with redirected(redirection):
            logits = self.module(images)
        carried = redirection.carried
        if not carried:
            raise InvalidInput(
                f"module: expected {type(self.module).__name__} to call torchdiffeq's odeint or odeint_adjoint, it called "
                "neither. Call one of them (not odeint_dense, and in no thread of its own), or give what it is made of to "
                "odefend.ODENet(stem, field, head, ...)."
            )
        self._check_logits(logits, len(images))
        if images.requires_grad and torch.is_grad_enabled():
            self._advise(carried)
        return logits, carried

    def _check_logits(self, logits: Any, batch: int) -> None:
        if isinstance(logits, Tensor) and logits.shape == (batch, self.classes):
            return
        found, way_out = type(logits).__name__, "Wrap it in a module whose forward gives the logits alone."
        if isinstance(logits, Tensor):
            found = str(tuple(logits.shape))
            if logits.shape in ((batch,), (batch, 1)):
                way_out = (
                    "If that is a logit, above 0 for class 1, it stands for two: "
                    "adapt(nn.Sequential(module, odefend.models.TwoLogits()), classes=2, ...)."
                )
            elif logits.ndim == 2 and len(logits) == batch:
                way_out = f"Say adapt(..., classes={logits.shape[1]})."
        raise InvalidInput(f"module: expected logits of shape ({batch}, {self.classes}), got {found}. {way_out}")

    def _advise(self, carried: Sequence[Carried]) -> None:
        if "gradient" not in self.chosen and any(one.call.gradient == "adjoint" for one in carried):
            warnings.warn(
                f"{type(self.module).__name__} calls odeint_adjoint, whose gradients take several times as long as unrolled ones "
                "(3 to 30 times were measured) and are inexact besides. Choose .at(gradient='unrolled'), or "
                "gradient='adjoint' to have them as they are.",
                stacklevel=2,
            )


def adapt(module: nn.Module, *, in_channels: int, classes: int, **settings: Any) -> Adapted:
    """A Classifier from a module that turns images (N, in_channels, H, W) in [0, 1] into logits (N, classes) and calls
    torchdiffeq (0.2.4 or newer) on the way, however it imported it. The module stays as it is; its solves are carried out by
    `solver.solve`, each image with its own steps. One logit for two classes becomes two by `models.TwoLogits`.

    settings: any of `SolverSettings` but `compiled`, as for `Adapted.at`; what is left out stays as the module asks
    for it, the bound on its steps (`max_num_steps`) and gradients included: "torchdiffeq" for odeint, "adjoint" for
    odeint_adjoint, which is several times slower than "unrolled" and whose error is each image's own, so that gradients are
    torchdiffeq's with coupling "batch" only.

    A field written for one time is tried out once, to find how it can be called at a time for each image; `calls` says
    what was found. A field that is no module is tried out at every call. A state may be a tuple. Where the state or its parts
    have no row for each image, or where rows depend on each other (batch norm in training mode or without running
    statistics), coupling="batch" has to be chosen: all images then share their steps and one tolerance, and an image's answer
    depends on its neighbours. What the module runs in threads of its own, or again in a backward pass
    (torch.utils.checkpoint), is not redirected.

    Raises InvalidInput at the first prediction if the module never calls torchdiffeq, or with options that steer its
    steps, events, callbacks, or a method that is not in `models.asked.OWN_METHODS`.
    """
    return Adapted(module, in_channels, classes, _checked(settings))


def _checked(chosen: dict[str, Any]) -> dict[str, Any]:
    known = [field.name for field in fields(SolverSettings) if field.name != "compiled"]
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
