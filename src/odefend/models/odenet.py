"""Neural-ODE classifiers: a stem, an ODE block over t in [0, 1], a head."""

import copy
from dataclasses import replace
from typing import Any

from torch import nn

from odefend.models.classifier import Classifier, Prediction
from odefend.models.layers import ODEField, check_width, convolution_stem, pooling_head, residual_stem
from odefend.models.settings import SolverSettings
from odefend.solver import Tolerance, solve
from odefend.tensors import Images, Index


class ODENet(Classifier):
    """stem -> solution at t = 1 of dh/dt = field(t, h) -> head.

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
        image), or with another `method`, `gradient`, `end` or `max_steps`."""
        if tolerance is not None:
            settings["tolerance"] = tolerance
        view = copy.copy(self)
        view.settings = replace(self.settings, **settings)
        return view

    def rows(self, index: Index) -> "ODENet":
        view = copy.copy(self)
        view.settings = self.settings.rows(index)
        return view

    def classify(self, images: Images) -> Prediction:
        # Under mixed precision only the field is computed in the lower one, never the state.
        how, state = self.settings, self.stem(images).to(images.dtype)
        field = self.field.prepared(state) if isinstance(self.field, ODEField) else self.field
        solution = solve(
            field,
            state,
            tolerance=how.tolerance,
            method=how.method,
            gradient=how.gradient,
            end=how.end,
            max_steps=how.max_steps,
        )
        stats = solution.stats
        return Prediction(self.head(solution.y), stats.nfe, stats.accepted, stats.rejected, solution.status)


def oon(in_channels: int = 1, width: int = 64, classes: int = 10) -> ODENet:
    """The ODE-Only Net of Carrara et al. (WIFS 2019): one strided convolution, then the ODE block."""
    check_width(width)
    return ODENet(
        convolution_stem(in_channels, width),
        ODEField(width),
        pooling_head(width, classes),
        in_channels=in_channels,
        classes=classes,
    )


def mix(in_channels: int = 1, width: int = 64, classes: int = 10) -> ODENet:
    """The mixed net of Carrara et al. (WIFS 2019): a residual stem, then the ODE block."""
    check_width(width)
    return ODENet(
        residual_stem(in_channels, width),
        ODEField(width),
        pooling_head(width, classes),
        in_channels=in_channels,
        classes=classes,
    )
