"""Cards: what a trained net says of itself."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Measured(BaseModel):
    """A rate measured on images, with its 95 % Wilson interval and how it was measured."""

    model_config = ConfigDict(extra="forbid")
    successes: int
    images: int
    rate: float
    low: float
    high: float
    settings: str


class Epoch(BaseModel):
    """What a pass over the training images brought."""

    model_config = ConfigDict(extra="forbid")
    images: int = Field(description="training images seen so far")
    seconds: float = Field(description="time spent so far, in training and in validation")
    learning_rate: float = Field(description="of its last step")
    loss: float = Field(description="mean over the pass")
    validation_accuracy: float | None = Field(description="null for models of images")
    validation_loss: float


class Trained(BaseModel):
    """What any checkpoint says of itself: what was trained, how, and on what."""

    model_config = ConfigDict(extra="forbid")
    format: int = 1
    name: str
    model: str
    options: dict[str, Any]
    parameters: int
    data: str
    data_digest: str
    recipe: dict[str, Any]
    seed: int
    epochs: int
    images_seen: int
    wall_seconds: float = Field(description="time of the training alone, on the device and threads below")
    device: str = ""
    threads: int = 0
    history: list[Epoch] = []
    versions: dict[str, str] = Field(description="code: digests of the sources that trained it, in turn")
    sha256: str = ""


class Card(Trained):
    """What a classifier's checkpoint says of itself."""

    tolerance: float | None = Field(description="solver tolerance in training; null for nets without a solver")
    solver: dict[str, Any] = Field(
        default={},
        description="what else decides the solution, where it is not the default: method, step, t1, end, ...",
    )
    test_accuracy: Measured
    accuracy_at: dict[str, Measured] = Field(default={}, description="test accuracy by solver tolerance (ODE nets)")
    mean_nfe: dict[str, float] = Field(description="mean evaluations of the field per test image, by tolerance")


class Mean(BaseModel):
    """A mean over images, with its 95 % interval by the bootstrap."""

    model_config = ConfigDict(extra="forbid")
    value: float
    low: float
    high: float
    images: int


class ImageCard(Trained):
    """What the checkpoint of a model of images says of itself."""

    measured: dict[str, Mean] = Field(description="on the test split, by name")
