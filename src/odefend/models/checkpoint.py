"""Checkpoints: weights as safetensors, and beside them a card that says where they come from and what they do.

Nothing is ever unpickled.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import safetensors.torch
from pydantic import ValidationError
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from odefend.errors import CheckpointError, UnknownName, unknown
from odefend.files import read_text, write_bytes, write_text
from odefend.models.card import Card, ImageCard, Trained
from odefend.models.classifier import Classifier
from odefend.models.families import IMAGE_MODELS, MODELS
from odefend.models.image_model import ImageModel
from odefend.models.odenet import ODENet

AnyCard = TypeVar("AnyCard", bound=Trained)
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def weights_digest(net: nn.Module) -> str:
    """16 hex digits that change with any weight, and, of a net that a user's own file builds, with that file."""
    digest = hashlib.sha256((getattr(net, "source", None) or "").encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(net: nn.Module, card: Trained, path: Path) -> Path:
    """Write `path`.safetensors and `path`.json, each atomically, the card last; returns the weights' path."""
    weights, description = path.with_suffix(".safetensors"), path.with_suffix(".json")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    write_bytes(weights, safetensors.torch.save(tensors))
    card = card.model_copy(update={"sha256": sha256(weights)})
    write_text(description, card.model_dump_json(indent=2) + "\n")
    return weights


def read_checkpoint(weights: Path, card: Card) -> Classifier:
    """The net of a card with these weights, in evaluation mode, with the card at `net.card`. Raises CheckpointError for a
    file that is missing, damaged, or not what the card says."""
    net = _filled(weights, card, MODELS)
    if isinstance(net, ODENet) and card.tolerance is not None:
        try:
            net = net.at(card.tolerance, **card.solver)
        except (TypeError, ValueError, UnknownName) as error:
            raise CheckpointError(f"{weights}: its card says that it is solved with {card.solver}: {error}") from error
    net.card = card
    return net.eval()


def read_image_model(weights: Path, card: ImageCard) -> ImageModel:
    """The same for a model of images."""
    model = _filled(weights, card, IMAGE_MODELS)
    model.card = card
    return model.eval()


def _filled(weights: Path, card: Trained, family: Mapping[str, Callable[..., AnyModule]]) -> AnyModule:
    """The model of a card, with the weights in a file that is the card's."""
    if not weights.is_file():
        raise CheckpointError(
            f"{weights}: no such file. A checkpoint is a .safetensors file with its .json card beside it."
        )
    if sha256(weights) != card.sha256:
        raise CheckpointError(
            f"{weights}: its SHA-256 is not the one on its card; the file is damaged or was changed. "
            "Restore it, or train it again."
        )
    if card.model not in family:
        raise unknown("model", card.model, family)
    try:
        with _no_larger_than(weights):
            model = family[card.model](**card.options)
        model.load_state_dict(safetensors.torch.load_file(weights))
    except Exception as error:  # a card may say anything, and each model raises its own of it
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{weights}: does not hold the weights of {card.model!r} with {card.options}: {reason}"
        ) from error
    return model


@contextmanager
def _no_larger_than(weights: Path) -> Iterator[None]:
    """Stop this thread from making a model with more numbers than a file of weights has bytes, before they are filled in."""
    room, here = weights.stat().st_size, threading.get_ident()

    def count(_: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal room
        if parameter is None or threading.get_ident() != here:
            return
        room -= parameter.numel()
        if room < 0:
            raise ValueError(f"{name} {tuple(parameter.shape)} is more than there is in the file")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def read_card(path: Path, kind: type[AnyCard] = Card) -> AnyCard:
    """The card in a file, of a classifier unless another `kind` is said. Raises CheckpointError where there is none."""
    try:
        return kind.model_validate_json(read_text(path))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such card. A checkpoint is a .safetensors file with its .json card beside it."
        ) from None
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error), "loc": ()}
        where = ".".join(map(str, reason["loc"]))
        raise CheckpointError(
            f"{path}: not a card of odefend ({where + ': ' if where else ''}{reason['msg']}). "
            "Name a checkpoint that odefend wrote."
        ) from error
