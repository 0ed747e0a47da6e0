"""The trained model of images that belongs beside a net."""

from typing import TypeVar

import torch

from odefend.errors import InvalidInput, OdefendError
from odefend.models.catalogue import image_cards, load_image_model
from odefend.models.classifier import Classifier
from odefend.models.image_model import ImageModel

AnyModel = TypeVar("AnyModel", bound=ImageModel)


def model_beside(net: Classifier, kind: type[AnyModel], name: str | None) -> AnyModel:
    """The model of images of a name in the zoo or the path of its file; without one, that of its kind which the zoo has for
    the data set that the net was trained on.

    Raises InvalidInput where there is none, or where it is of another kind or for other images than the net takes.
    """
    family, data = kind.__name__.lower(), net.card.data if net.card else None
    if name is None:
        fitting = [one for one, card in image_cards().items() if (card.model, card.data) == (family, data)]
        if not fitting:
            raise InvalidInput(
                f"model: the zoo has no {family} of {data or 'what this net was trained on'}. Train one by a recipe like "
                f"digits-{family} (odefend train) and name its file."
            )
        name = fitting[0]
    model = _loaded(name)
    if not isinstance(model, kind):
        raise InvalidInput(f"model: expected {family}, got {name}, which is {type(model).__name__.lower()}.")
    if model.in_channels != net.in_channels:
        raise InvalidInput(f"model: expected one for {net.in_channels} channels, got {name}, for {model.in_channels}.")
    return model.to(next(net.parameters(), torch.zeros(0)).device)


def _loaded(name: str) -> ImageModel:
    try:
        return load_image_model(name).requires_grad_(False)
    except OdefendError as error:
        raise InvalidInput(f"model: {error}") from error
