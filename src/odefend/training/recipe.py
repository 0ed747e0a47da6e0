"""Recipes: everything that decides a training, as data that can be read, checked and hashed."""

import tomllib
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from odefend.data import DATASETS
from odefend.errors import InvalidInput, unknown
from odefend.models import MODELS

RECIPES = Path(__file__).parent / "recipes"

Precision = Literal["32-true", "64-true", "bf16-mixed"]


class Recipe(BaseModel):
    """How a net is trained: Adam under a one-cycle learning rate, the last epoch kept (nothing is selected)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="name of the trained net, as dataset-net")
    model: str = Field(description="one of odefend.MODELS")
    options: dict[str, Any] = Field(default={}, description="arguments of the model, such as width")
    data: str = Field(description="one of odefend.DATASETS")
    epochs: int = Field(ge=1)
    batch_size: int = Field(default=64, ge=2)
    peak_learning_rate: float = Field(default=5e-3, gt=0, description="top of the one-cycle schedule")
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0, description="largest L2 norm of a step's gradient")
    tolerance: float = Field(default=1e-3, gt=0, description="solver tolerance in training (ODE nets)")
    seed: int = 23
    precision: Precision = "32-true"


def read_recipe(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe by the name of a shipped one or the path of a TOML file, with some keys replaced.

    Raises UnknownName for an unknown recipe, key, model or data set (with the nearest name) and InvalidInput for a
    value out of range or a file that is not TOML.
    """
    path = Path(name)
    if path.suffix != ".toml":
        known = [file.stem for file in RECIPES.glob("*.toml")]
        if name not in known:
            raise unknown("recipe", name, known)
        path = RECIPES / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path}: expected a TOML file with a recipe: {error}") from error
    values.update(overrides or {})
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
    if recipe.model not in MODELS:
        raise unknown("model", recipe.model, MODELS)
    if recipe.data not in DATASETS:
        raise unknown("data set", recipe.data, DATASETS)
    known = signature(MODELS[recipe.model]).parameters
    for option in recipe.options:
        if option not in known:
            raise unknown(f"option of the model {recipe.model!r},", option, known)
    return recipe
