"""What the command line chooses by names and settings: attacks, and images."""

from collections.abc import Callable
from typing import Any

from odefend.attacks import Attack, Pushed, named_attack
from odefend.data import LabelledImages, check_data, named_data, tell_of_fewer
from odefend.data import folder as folder_of_pictures
from odefend.errors import InvalidInput
from odefend.files import parse_toml
from odefend.models import Classifier


def setting(text: str) -> tuple[str, Any]:
    """A setting as the command line has it: NAME=VALUE, the value as in TOML or a bare word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"settings: expected NAME=VALUE, such as steps=40, got {text!r}.")
    try:
        return name.strip(), parse_toml(f"value = {value}")["value"]
    except ValueError:
        return name.strip(), value.strip()


def chosen_attack(name: str, settings: list[str], push: float | None) -> Attack:
    """The attack that the command line names; values as in TOML, and bare words."""
    attack = named_attack(name, dict(map(setting, settings)))
    return attack if push is None else Pushed(attack, push)


def chosen_data(net: Classifier, name: str | None, settings: list[str]) -> tuple[str, dict[str, Any]]:
    """A data set and its options: as named, or else what the net was trained on, with the options of then unless others are set.
    Pictures below a folder are read as grey ones if the net takes such, unless that is set."""
    options: dict[str, Any] = dict(map(setting, settings))
    if name is None:
        if net.card is None:
            raise InvalidInput(
                "data: expected the name of a data set, since the net does not say what it was trained on. Use --data."
            )
        name, options = net.card.data, net.card.recipe.get("data_options", {}) | options
    kind: Callable[..., LabelledImages] = check_data(name, options)[0]
    return name, ({"grey": net.in_channels == 1} if kind is folder_of_pictures else {}) | options


def first_images(data: tuple[str, dict[str, Any]], split: str, count: int) -> LabelledImages:
    """So many images of a split, or all, which is told."""
    found = named_data(data[0], split, data[1])
    tell_of_fewer(data[0], split, count, len(found))
    return found[:count]
