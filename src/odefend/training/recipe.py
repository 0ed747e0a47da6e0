"""Recipes: everything that decides a training, as data that can be read, checked and hashed."""

from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from odefend.data import check_data
from odefend.errors import InvalidInput, unknown
from odefend.files import parse_toml, read_text
from odefend.models import IMAGE_MODELS, MODELS, SolverSettings

RECIPES = Path(__file__).parent / "recipes"

SCALES = ("smoke", "desk", "paper")
"""smoke: seconds, shows that it runs; desk: at most an hour on two cores; paper: the published settings."""

Precision = Literal["32-true", "64-true", "bf16-mixed"]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OneCycle(_Settings):
    """Up to the learning rate and down to nothing, with momentum against it, step by step (arXiv 1708.07120)."""

    name: Literal["one-cycle"] = "one-cycle"


class Constant(_Settings):
    """The learning rate throughout."""

    name: Literal["constant"]


class Plateau(_Settings):
    """Times `factor` when accuracy on the validation split has not risen (of a model of images: the loss has not fallen) by
    .0001 for more than `patience` epochs."""

    name: Literal["plateau"]
    factor: float = Field(default=0.1, gt=0, lt=1)
    patience: int = Field(ge=0)


class WarmUp(_Settings):
    """Linearly up to the learning rate in `epochs` epochs, then constant."""

    name: Literal["warm-up"]
    epochs: int = Field(ge=1)


class Cosine(_Settings):
    """Down along a half cosine to `minimum` in `epochs` epochs, up again in as many, and so on."""

    name: Literal["cosine"]
    epochs: int = Field(ge=1)
    minimum: float = Field(default=0.0, ge=0)


class Steps(_Settings):
    """Times `factor` after each of the epochs in `at`."""

    name: Literal["steps"]
    factor: float = Field(gt=0, lt=1)
    at: tuple[Annotated[int, Field(ge=1)], ...]


Schedule = Annotated[OneCycle | Constant | WarmUp | Plateau | Cosine | Steps, Field(discriminator="name")]


class Augmentation(_Settings):
    """Random changes of the training images, drawn anew for each image and epoch; what is 0 or false is not done."""

    crop: int = Field(default=0, ge=0, description="black pixels added around, of which as many are cut off at random")
    flip: bool = Field(default=False, description="mirror every second image from left to right")
    hue: float = Field(default=0.0, ge=0, le=0.5, description="largest turn of the hue, 0.5 = half the colour circle")
    saturation: float = Field(default=0.0, ge=0, le=1, description="largest relative change of saturation")


class Adversarial(_Settings):
    """Learn from images moved uphill on the loss inside an L-inf ball, from a random point of it (Madry et al., arXiv
    1706.06083; with one step: Wong et al., arXiv 2001.03994)."""

    epsilon: float = Field(gt=0, le=1, description="radius of the ball")
    steps: int = Field(default=7, ge=1)
    step: float | None = Field(
        default=None,
        gt=0,
        description="length of a step in radii; default: 2.5 / steps, but no more than .5, for trained by few long steps a net may "
        "withstand those alone (catastrophic overfitting, arXiv 2001.03994); 1.25 for a single step, of which that is true as well",
    )
    ramp: int = Field(default=0, ge=0, description="epochs in which the radius grows to its full size, step by step")
    beta: float = Field(
        default=0.0,
        ge=0,
        description="learn from clean images, and this much from the divergence of the answers to the moved ones: TRADES (Zhang "
        "et al., arXiv 1901.08573); 0: from the moved ones alone",
    )
    ccat: float = Field(
        default=0.0,
        ge=0,
        description="learn from clean images, and to be unsure of the moved ones, the farther the more, with this power: "
        "confidence-calibrated training (Stutz et al., arXiv 1910.06259, power 10); 0: not so",
    )

    @model_validator(mode="after")
    def _check_one_loss(self) -> "Adversarial":
        if self.beta and self.ccat:
            raise ValueError("expected beta (TRADES) or ccat, not both, for they are two losses")
        return self

    @property
    def length(self) -> float:
        """Of a step, in radii."""
        if self.step is not None:
            return self.step
        return min(2.5 / self.steps, 0.5) if self.steps > 1 else 1.25

    def radius(self, epochs: float) -> float:
        """Of the ball, after so many epochs."""
        return self.epsilon * min(1.0, epochs / self.ramp) if self.ramp else self.epsilon


class Noise(_Settings):
    """Learn under Gaussian noise, fresh for each image and epoch and not clipped, as `defenses.Smoothing` adds it (Cohen et al.,
    arXiv 1902.02918)."""

    sigma: float = Field(gt=0, description="standard deviation, pixels being in [0, 1]")
    where: Literal["input", "state"] = Field(
        default="input", description="state: in what the stem makes of the image, in its own units"
    )


class Recipe(_Settings):
    """How a net is trained, on the training split; nothing is ever chosen by the test split."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="name of the trained net, as dataset-net")
    scale: Literal["smoke", "desk", "paper"] = "desk"
    model: str = Field(
        description="one of odefend.MODELS, or one of odefend.IMAGE_MODELS, which have a loss of their own"
    )
    options: dict[str, Any] = Field(default={}, description="arguments of the model, such as width")
    data: str = Field(description="one of odefend.DATASETS")
    data_options: dict[str, Any] = Field(default={}, description="arguments of the data set, such as tampering")
    images: int | None = Field(default=None, ge=2, description="use the first so many of each split only, for trials")
    epochs: int = Field(ge=1)
    batch_size: int = Field(default=64, ge=2, description="images per step, over all devices")
    optimizer: Literal["adamw", "adam", "adamax", "sgd"] = Field(
        default="adamw", description="adam, adamax and sgd add weight decay to the gradient; sgd has momentum 0.9"
    )
    learning_rate: float = Field(default=5e-3, gt=0, description="of the one-cycle schedule: its peak")
    schedule: Schedule = OneCycle()
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, ge=0, description="largest L2 norm of a step's gradient; 0: any")
    loss: Literal["cross-entropy", "binary"] = Field(
        default="cross-entropy", description="binary: cross-entropy of the one output behind two logits (-y, y)"
    )
    augmentation: Augmentation = Augmentation()
    adversarial: Adversarial | None = Field(default=None, description="train against attacks in a ball")
    noise: Noise | None = Field(default=None, description="train under noise")
    begin: str | None = Field(
        default=None,
        description="the trained net whose weights to begin from: a name of the zoo or a .safetensors file",
    )
    keep: Literal["last", "best-accuracy", "best-loss"] = Field(
        default="last", description="which epoch's weights: the last, or the best on the validation split"
    )
    tolerance: float = Field(default=1e-3, gt=0, description="solver tolerance in training (ODE nets)")
    solver: dict[str, Any] = Field(
        default={}, description="other solver settings in training (ODE nets), such as gradient; see SolverSettings"
    )
    seed: int = Field(default=23, ge=0, lt=2**63)
    precision: Precision = "32-true"


def recipe_names() -> list[str]:
    """The shipped recipes."""
    return sorted(file.stem for file in RECIPES.glob("*.toml"))


def read_recipe(name: str, scale: str = "desk", overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe by the name of a shipped one or the path of a TOML file, at a scale, with some keys replaced.

    A file may have a table for each of the `SCALES`, whose keys replace those above it. `overrides` are keys of a recipe, and
    "tampering" for that of `data_options`. At another scale than desk, and with another seed or tampering than the recipe's,
    the name says so ("mnist-oon-paper-seed7"), unless it is replaced too.

    Raises UnknownName for an unknown recipe, scale, key, model or data set (with the nearest name) and InvalidInput for a
    value out of range or a file that is not TOML.
    """
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    path, values = _read(name)
    at_scales = {one: values.pop(one, None) for one in SCALES}
    if scale != "desk" and at_scales[scale] is None:
        raise InvalidInput(f"{path}: expected a table [{scale}] for that scale, found none. Choose --scale desk.")
    chosen = at_scales[scale] or {}
    if not isinstance(chosen, dict):
        raise InvalidInput(f"{path}: {scale}: expected a table [{scale}], got {chosen!r}.")
    values |= chosen | {"scale": scale}
    changes = dict(overrides or {})
    if tampering := changes.pop("tampering", None):
        changes["data_options"] = values.get("data_options", {}) | {"tampering": tampering}
    return _checked(path, _renamed(values, changes, tampering) | changes)


def scales_of(name: str) -> tuple[str, ...]:
    """The scales that a recipe has."""
    values = _read(name)[1]
    return tuple(scale for scale in SCALES if scale == "desk" or scale in values)


def _read(name: str) -> tuple[Path, dict[str, Any]]:
    """A recipe's file and what stands in it."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in recipe_names():
            raise unknown("recipe", name, recipe_names())
        path = RECIPES / f"{name}.toml"
    try:
        return path, parse_toml(read_text(path))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: expected a TOML file with a recipe: {error}") from error


def _renamed(values: dict[str, Any], overrides: dict[str, Any], tampering: str | None) -> dict[str, Any]:
    suffix = f"-{tampering}" if tampering else ""
    suffix += "" if values["scale"] == "desk" else f"-{values['scale']}"
    if overrides.get("seed", usual := values.get("seed", Recipe.model_fields["seed"].default)) != usual:
        suffix += f"-seed{overrides['seed']}"
    return values | {"name": f"{values['name']}{suffix}"} if "name" in values else values


def _checked(path: Path, values: dict[str, Any]) -> Recipe:
    for key in values:
        if key not in Recipe.model_fields:
            raise unknown("recipe key", key, Recipe.model_fields)
    try:
        recipe = Recipe(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; got {first['input']!r}."
        ) from error
    family = {**MODELS, **IMAGE_MODELS}
    if recipe.model not in family:
        raise unknown("model", recipe.model, family)
    known = signature(family[recipe.model]).parameters
    for option in recipe.options:
        if option not in known:
            raise unknown(f"option of the model {recipe.model!r},", option, known)
    check_data(recipe.data, recipe.data_options)
    if recipe.model in IMAGE_MODELS:
        _check_image_recipe(path, recipe)
    if recipe.adversarial and recipe.noise:
        raise InvalidInput(
            f"{path}: noise: expected none beside adversarial, for the images are moved already. Choose one."
        )
    settings = [field.name for field in fields(SolverSettings) if field.name != "tolerance"]
    for setting in recipe.solver:
        if setting not in settings:
            raise unknown("solver setting", setting, settings)
    try:
        SolverSettings(**recipe.solver)  # raises for wrong values
    except TypeError as error:
        raise InvalidInput(f"{path}: solver: {error}") from error
    return recipe


def _check_image_recipe(path: Path, recipe: Recipe) -> None:
    """Raise InvalidInput for what a model of images, which has no labels to learn, would not heed."""
    classifying = {"loss": recipe.loss == "binary", "keep": recipe.keep == "best-accuracy"}
    for key, there in (
        classifying | {key: getattr(recipe, key) is not None for key in ("adversarial", "noise", "begin")}
    ).items():
        if there:
            raise InvalidInput(
                f"{path}: {key}: expected none of {getattr(recipe, key)!r} for {recipe.model}, a model of images, which has no "
                "answers to be right or wrong. Leave it out."
            )
