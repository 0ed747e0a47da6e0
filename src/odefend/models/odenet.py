"""Neural-ODE classifiers: a stem, an ODE block from t = 0 to t1 (by default 1), a head."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from odefend.models.classifier import Prediction, check_images
from odefend.models.layers import (
    Normalization,
    ODEField,
    PreparedField,
    check_width,
    convolution_stem,
    pooling_head,
    residual_stem,
)
from odefend.models.settings import SolverSettings, decisive
from odefend.models.solving import Solving, Steps, solving, steps_of
from odefend.solver import Solution, StepLog, Tolerance, VectorField, accepted_steps, effort, solve, step_errors
from odefend.tensors import Images, Index, PerImage, State


class ODENet(Solving):
    """stem -> solution at t1 of dh/dt = field(t, h) from t = 0 -> head.

    The weights are fixed by training; how the ODE is solved is not: `at` gives a view with other settings.
    """

    def __init__(
        self,
        stem: nn.Module,
        field: nn.Module,
        head: nn.Module,
        *,
        in_channels: int,
        classes: int,
        settings: SolverSettings | None = None,
    ) -> None:
        super().__init__(in_channels, classes)
        self.stem, self.field, self.head = stem, field, head
        self.settings = settings or SolverSettings()

    def at(self, tolerance: Tolerance | None = None, **settings: Any) -> "ODENet":
        """A view that shares the weights and solves at another tolerance (a float, (rtol, atol), or one value per
        image), or with others of the `SolverSettings`: `method`, `step`, `gradient`, `adjoint_tolerance`, `end`,
        `coupling`, `max_steps`, `t1` (a float, or one value per image), `compiled`."""
        if tolerance is not None:
            settings["tolerance"] = tolerance
        view = copy.copy(self)
        view.settings = self.settings.at(**settings)
        return view

    def rows(self, index: Index) -> "ODENet":
        settings = self.settings.rows(index)
        if settings is self.settings:
            return self
        view = copy.copy(self)
        view.settings = settings
        return view

    @property
    def tolerance(self) -> Tolerance:
        return self.settings.tolerance

    @property
    def method(self) -> str:
        return self.settings.method

    @property
    def solved(self) -> dict[str, Any]:
        return decisive(vars(self.settings))

    def steps(self, images: Images) -> Steps:
        solving(self, "steps", controlled=True)
        with torch.no_grad():
            solution = self.trajectory(images)
        assert solution.log is not None
        if torch.is_grad_enabled() and images.requires_grad:
            return steps_of([solution], [self.step_errors(images, solution.log)])
        return steps_of([solution], [accepted_steps(solution.log, len(images))[3]])

    def trajectory(self, images: Tensor, times: Sequence[float] | Tensor | None = None) -> Solution:
        """How the ODE block's state moves: its solution for each image, with the state at the given times in [0, t1]
        as `path` and every attempted step as `log`."""
        check_images(images, self.in_channels)
        return self.solve(self.stem(images).to(images.dtype), times=times, log=True)

    def solve(self, state: State, **wanted: Any) -> Solution:
        """The solution of the ODE block from a state after the stem; `wanted` as for `solver.solve`."""
        how = self.settings
        field = self._prepared(state)
        if how.compiled and field is self.field:
            field = torch.compile(field, dynamic=True)
        chosen = {name: value for name, value in vars(how).items() if name != "compiled"}
        return solve(field, state, **chosen, **wanted)

    def _prepared(self, state: State) -> VectorField:
        """The field, made ready for states of this size where it can be."""
        if isinstance(self.field, ODEField):
            return PreparedField(self.field, *state.shape[2:], compiled=self.settings.compiled)
        return self.field

    def effort(self, images: Tensor, grid: int = 8) -> PerImage:
        check_images(images, self.in_channels)
        state, how = self.stem(images).to(images.dtype), self.settings
        return effort(self._prepared(state), state, 0.0, how.t1, method=how.method, tolerance=how.tolerance, grid=grid)

    def step_errors(self, images: Images, log: StepLog) -> Tensor:
        """What the steps in the log of these images' solve estimated of their errors, differentiable in the images: see
        `solver.step_errors`."""
        check_images(images, self.in_channels)
        state = self.stem(images).to(images.dtype)
        return step_errors(self._prepared(state), state, log, self.settings.method)

    def classify(self, images: Images) -> Prediction:
        # Under mixed precision only the field is computed in the lower one, never the state.
        return self.classify_state(self.stem(images).to(images.dtype))

    def classify_state(self, state: State) -> Prediction:
        """The prediction from a state after the stem."""
        solution = self.solve(state)
        stats = solution.stats
        return Prediction(self.head(solution.y), stats.nfe, stats.accepted, stats.rejected, solution.status)


def oon(in_channels: int = 1, width: int = 64, classes: int = 10, normalization: Normalization = None) -> ODENet:
    """The ODE-Only Net of Carrara et al. (WIFS 2019): one strided convolution, then the ODE block."""
    check_width(width)
    return ODENet(
        convolution_stem(in_channels, width, normalization),
        ODEField(width),
        pooling_head(width, classes),
        in_channels=in_channels,
        classes=classes,
    )


def mix(in_channels: int = 1, width: int = 64, classes: int = 10, normalization: Normalization = None) -> ODENet:
    """The mixed net of Carrara et al. (WIFS 2019): a residual stem, then the ODE block."""
    check_width(width)
    return ODENet(
        residual_stem(in_channels, width, normalization),
        ODEField(width),
        pooling_head(width, classes),
        in_channels=in_channels,
        classes=classes,
    )
