"""Detectors that look at an image through GLOW: at its likelihood, or at its latent variables (Xiong et al., 2022)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from odefend.detectors.base import Detector
from odefend.detectors.learning import learn_to_tell, restored
from odefend.errors import InvalidInput, unknown
from odefend.models import Classifier, Glow, ImageModel, model_beside
from odefend.tensors import Images, OtherImages, PerImage

BATCH = 250


@dataclass(eq=False)
class FlowLikelihood(Detector):
    """How many bits per dimension GLOW takes for an image: unlikely images are suspicious. `model`: see `model_beside`."""

    net: Classifier
    model: str | None = None

    def __post_init__(self) -> None:
        self.flow = model_beside(self.net, Glow, self.model)

    @property
    def beside(self) -> Mapping[str, ImageModel]:
        return {"flow": self.flow}

    @property
    def cost(self) -> int:
        return 0

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        return self.flow.bits_per_dimension(images.float())


def simple_net(inputs: int) -> nn.Sequential:
    """A small net from latent variables to two logits, clean and attacked: for 768 variables that of Xiong et al., 383,714
    parameters. Its layers shrink with the number of variables, to no fewer than 16."""
    widths = [inputs, *(max(inputs // part, 16) for part in (2, 4, 12, 24))]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 2))


@dataclass(eq=False)
class FlowLatent(Detector):
    """The log-odds that a small net gives to "attacked", from GLOW's latent variables of an image: those of the deepest level, as
    published, or of all `levels`. `model`: see `model_beside`.

    Adam in batches of 64, both kinds weighing the same; published: 25 epochs at a rate of 1e-5 on 100,000 images. It knows
    the attacks it was shown, and promises nothing of others.
    """

    learns = True
    supervised = True
    net: Classifier
    model: str | None = None
    levels: Literal["last", "all"] = "last"
    epochs: int = 25
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 < self.learning_rate < float("inf"):
            raise InvalidInput(
                f"epochs, learning_rate: expected positive ones, got {self.epochs}, {self.learning_rate}."
            )
        if self.levels not in ("last", "all"):
            raise unknown("levels", self.levels, ("last", "all"))
        self.flow = model_beside(self.net, Glow, self.model)

    @property
    def beside(self) -> Mapping[str, ImageModel]:
        return {"flow": self.flow}

    @property
    def cost(self) -> int:
        return 0

    @torch.no_grad()
    def learn(self, clean: Images, attacked: OtherImages | None) -> dict[str, Tensor]:
        assert attacked is not None
        usual, odd = (torch.cat([self._variables(some) for some in all.split(BATCH)]) for all in (clean, attacked))
        return learn_to_tell(lambda: simple_net(usual.shape[1]), usual, odd, self.epochs, self.learning_rate, self.seed)

    def suspicion(self, images: Images, ids: Sequence[str]) -> PerImage:  # noqa: ARG002
        variables = self._variables(images)
        said = restored(lambda: simple_net(variables.shape[1]), self.state, variables)
        return said[:, 1] - said[:, 0]

    def _variables(self, images: Images) -> Tensor:
        """(images, variables)"""
        found = self.flow.latents(images.float())
        return torch.cat([level.flatten(1) for level in (found if self.levels == "all" else found[:1])], 1)
