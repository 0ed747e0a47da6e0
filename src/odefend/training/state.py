"""Where a training stands: what it needs in order to go on after it was stopped."""

import hashlib
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from odefend.errors import CheckpointError, OutputError
from odefend.files import write_bytes
from odefend.models import Epoch
from odefend.training.recipe import Recipe
from odefend.version import code_digest

SAVE_EVERY = 60.0
"""Seconds between writings of the state within an epoch."""


@dataclass
class State:
    """A position in a training, and what it has brought so far."""

    epoch: int = 0
    step: int = 0  # batches learnt of the current epoch
    seconds: float = 0.0
    loss: float = 0.0  # summed over the current epoch's images
    history: list[Epoch] = field(default_factory=list)
    learning_rate: float = 0.0  # of the latest step
    code: list[str] = field(default_factory=list)  # digests of the sources that have run it
    best_score: float = float("-inf")
    best: dict[str, Tensor] = field(default_factory=dict)
    began: float = 0.0

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Count the time spent inside."""
        self.began = time.perf_counter()
        try:
            yield
        finally:
            self.tick()

    def tick(self) -> None:
        """Count the time up to now."""
        now = time.perf_counter()
        self.seconds, self.began = self.seconds + now - self.began, now

    def begin(self) -> None:
        """Write down which sources go on from here."""
        if code_digest() not in self.code:
            self.code.append(code_digest())

    def end_epoch(self, images: int, accuracy: float | None, loss: float) -> None:
        """Write down what the epoch brought, and begin the next."""
        self.tick()
        self.epoch += 1
        self.history.append(
            Epoch(
                images=self.epoch * images,
                seconds=round(self.seconds, 1),
                learning_rate=self.learning_rate,
                loss=self.loss / images,
                validation_accuracy=accuracy,
                validation_loss=loss,
            )
        )
        self.step, self.loss = 0, 0.0


class Saver:
    """Keeps a training's state in a file that belongs to one recipe."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.fingerprint = hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()
        self.last = time.monotonic()

    def is_due(self) -> bool:
        """Whether enough time has passed since the state was last written."""
        return time.monotonic() - self.last >= SAVE_EVERY

    def save(self, net: nn.Module, optimizer: Any, scheduler: Any, state: State) -> None:
        """Write everything, atomically."""
        content = {
            "recipe": self.fingerprint,
            "net": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": scheduler.state_dict(),
            "state": {name: value for name, value in vars(state).items() if name not in ("history", "began")},
            "history": [epoch.model_dump() for epoch in state.history],
        }
        packed = io.BytesIO()
        torch.save(content, packed)
        write_bytes(self.path, packed.getvalue())
        self.last = time.monotonic()

    def remove(self) -> None:
        """The training is done."""
        self.path.unlink(missing_ok=True)

    def resume(self, net: nn.Module, optimizer: Any, scheduler: Any) -> State | None:
        """The state that an earlier run left, if there is one; the others are brought to where it stopped."""
        if not self.path.exists():
            return None
        try:
            # weights_only: a reader that can build tensors and plain containers, and execute nothing.
            content: dict[str, Any] = torch.load(self.path, weights_only=True, map_location="cpu")
            same = content["recipe"] == self.fingerprint
            if same:
                net.load_state_dict(content["net"])
                optimizer.load_state_dict(content["optimizer"])
                scheduler.load_state_dict(content["schedule"])
                history = [Epoch(**epoch) for epoch in content["history"]]
                return State(**content["state"], history=history)
        except OSError as error:
            raise OutputError(f"cannot read {self.path}: {error.strerror or error}.") from error
        except Exception as error:
            raise CheckpointError(f"{self.path}: not a training state of odefend. Remove it to start again.") from error
        raise CheckpointError(
            f"{self.path}: belongs to a training with other settings. Remove it to start again, or choose another folder."
        )
