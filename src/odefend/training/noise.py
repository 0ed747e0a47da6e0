"""Training under noise: the net as a smoothed classifier asks it, of images or states that noise has left anywhere."""

from torch import Tensor, nn

from odefend.errors import InvalidInput
from odefend.models import Classifier, ODENet, ResNet
from odefend.tensors import Images, Logits, State


class UnderNoise(nn.Module):
    """A net that is told what to add to its images, or to the states that its stem makes of them. Its parameters are the net's."""

    def __init__(self, net: Classifier, where: str) -> None:
        super().__init__()
        if where == "state" and not isinstance(net, ODENet | ResNet):
            raise InvalidInput(f"noise: expected a net with a stem for noise in the state, got {type(net).__name__}.")
        self.net, self.where = net, where

    def forward(self, images: Images, noise: Tensor) -> Logits:
        """The logits. What is asked about need not be in [0, 1]."""
        net = self.net
        if self.where == "input" or not isinstance(net, ODENet | ResNet):
            return net.classify(images + noise).checked().logits
        return net.classify_state(self._states(images) + noise).checked().logits

    def shape(self, images: Images) -> tuple[int, ...]:
        """Of the noise for one of these images."""
        return tuple(images.shape[1:] if self.where == "input" else self._states(images[:1]).shape[1:])

    def _states(self, images: Images) -> State:
        assert isinstance(self.net, ODENet | ResNet)
        return self.net.stem(images).to(images.dtype)
