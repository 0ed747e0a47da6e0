"""Optimizers and learning-rate schedules by a recipe."""

import warnings
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from odefend.training.recipe import Constant, Cosine, OneCycle, Plateau, Recipe, Steps, WarmUp

MOMENTUM = 0.9


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer for the net's weights."""
    how: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(net.parameters(), momentum=MOMENTUM, **how)
        case "adam":
            return torch.optim.Adam(net.parameters(), **how)
        case "adamax":
            return torch.optim.Adamax(net.parameters(), **how)
        case "adamw":
            return torch.optim.AdamW(net.parameters(), **how)


class LearningRate:
    """The recipe's schedule: `step` after each batch, `epoch` after each epoch."""

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, batches: int) -> None:
        self.by_step, self.by_result = False, False
        match recipe.schedule:
            case OneCycle():
                self.by_step = True
                self.scheduler: Any = lr_scheduler.OneCycleLR(
                    optimizer, recipe.learning_rate, total_steps=recipe.epochs * batches
                )
            case Constant():
                self.scheduler = lr_scheduler.ConstantLR(optimizer, factor=1.0)
            case WarmUp(epochs=epochs):
                self.by_step, factor = True, 1 / (epochs * batches)
                self.scheduler = lr_scheduler.LinearLR(optimizer, factor, 1.0, epochs * batches)
            case Plateau(factor=factor, patience=patience):
                self.by_result = True
                # Of what may have any sign a relative threshold would make no sense.
                how = {"factor": factor, "patience": patience, "threshold": 1e-4, "threshold_mode": "abs"}
                self.scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, "min", **how)
            case Cosine(epochs=epochs, minimum=minimum):
                self.scheduler = lr_scheduler.CosineAnnealingLR(optimizer, epochs, minimum)
            case Steps(factor=factor, at=at):
                self.scheduler = lr_scheduler.MultiStepLR(optimizer, list(at), factor)

    def step(self) -> None:
        """A batch has been learnt."""
        if self.by_step:
            self._advance()

    def epoch(self, badness: float) -> None:
        """An epoch has been learnt, with this on the validation split: minus the accuracy, or the loss of a model of images."""
        if self.by_result:
            self.scheduler.step(badness)
        elif not self.by_step:
            self._advance()

    def _advance(self) -> None:
        with warnings.catch_warnings():
            # torch counts the optimizer's steps from when it was made, and so miscounts in a resumed training.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.scheduler.step()
