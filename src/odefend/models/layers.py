"""The parts that the papers' nets are made of, exactly as their authors' code has them (Carrara et al., WIFS 2019)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odefend.errors import InvalidInput
from odefend.tensors import Images, State


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups, or one per channel where there are fewer than 32."""
    return nn.GroupNorm(min(32, channels), channels)


class TimeConv(nn.Conv2d):
    """A 3x3 convolution over the state and the time, the time as a constant feature map, the first or the last channel.

    conv(concat(t, x)) = conv(x) + t * conv(1), so nothing is concatenated and each sample may have its own time.
    Parameters and state dict are those of Conv2d(channels + 1, channels, 3, padding=1).
    """

    def __init__(self, channels: int, *, time_first: bool = True) -> None:
        super().__init__(channels + 1, channels, 3, padding=1)
        self.time_first = time_first

    def fold(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """(weights for the state, response to a time of 1), which serve every call on states of this size."""
        ones = self.weight.new_ones((1, 1, height, width))
        if self.time_first:
            time, state = self.weight[:, :1], self.weight[:, 1:]
        else:
            time, state = self.weight[:, -1:], self.weight[:, :-1]
        return state.contiguous(), F.conv2d(ones, time, padding=1)

    def forward(self, t: Tensor, x: State, folded: tuple[Tensor, Tensor] | None = None) -> State:  # type: ignore[override]
        """t of shape (B,), x of shape (B, channels, H, W); `folded` is what `fold` gives for H and W."""
        weight, clock = folded or self.fold(*x.shape[2:])
        # In place: a convolution's backward pass does not need its output. In one dtype: under mixed precision the
        # convolution's is another than t's.
        return F.conv2d(x, weight, self.bias, padding=1).addcmul_(t.view(-1, 1, 1, 1).to(clock.dtype), clock)


class ODEField(nn.Module):
    """f(t, x) of MIX and OON: GN, ReLU, conv, GN, ReLU, conv, GN, with the time given to both convolutions.

    `activation` for ReLU and the place of the time channel are what the net of Caldelli et al. (ICIP 2022) changes.
    """

    def __init__(
        self, channels: int, activation: Callable[[Tensor], Tensor] = F.relu_, *, time_first: bool = True
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm1, self.conv1 = group_norm(channels), TimeConv(channels, time_first=time_first)
        self.norm2, self.conv2 = group_norm(channels), TimeConv(channels, time_first=time_first)
        self.norm3 = group_norm(channels)

    def evaluate(self, t: Tensor, x: State, *folded: tuple[Tensor, Tensor]) -> State:
        """dx/dt, with what `fold` gives for each of the two convolutions."""
        # Under mixed precision norms would run, and be stored, in the state's float32: half as fast, and no more exact.
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        # The ReLU is in place: a norm's backward pass does not need its output.
        x = self.conv1(t, self.activation(self.norm1(x)), folded[0])
        x = self.conv2(t, self.activation(self.norm2(x)), folded[1])
        return self.norm3(x)

    def forward(self, t: Tensor, x: State) -> State:
        """dx/dt at times t of shape (B,)."""
        size = x.shape[2:]
        return self.evaluate(t, x, self.conv1.fold(*size), self.conv2.fold(*size))


class PreparedField(nn.Module):
    """An `ODEField` for states of one size, with what does not change during a solve computed once."""

    def __init__(self, field: ODEField, height: int, width: int, *, compiled: bool = False) -> None:
        super().__init__()
        self.field = field
        self.folded = (field.conv1.fold(height, width), field.conv2.fold(height, width))
        # Shapes are dynamic: samples that are done leave the batch.
        self.evaluate = torch.compile(field.evaluate, dynamic=True) if compiled else field.evaluate
        self.concurrent = not compiled  # for `solver.shares`

    def forward(self, t: Tensor, x: State) -> State:
        """dx/dt at times t of shape (B,)."""
        return self.evaluate(t, x, *self.folded)


class ResidualField(nn.Module):
    """x + f(x) with f of the shape of `ODEField` but for the time: what a matched ResNet has in an ODE block's place."""

    def __init__(self, channels: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.body = nn.Sequential(
            group_norm(channels),
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels),
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels),
        )

    def forward(self, x: State) -> State:
        """The state after the block."""
        return x + self.body(x)


class ResBlock(nn.Module):
    """A pre-activation residual block with two norms; where it changes the size, the shortcut is a 1x1 convolution of
    the activated input."""

    def __init__(self, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(channels), group_norm(out_channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        resizes = stride != 1 or channels != out_channels
        self.shortcut = nn.Conv2d(channels, out_channels, 1, stride, bias=False) if resizes else None

    def forward(self, x: State) -> State:
        """The state after the block."""
        activated = F.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(activated)
        return skip + self.conv2(F.relu(self.norm2(self.conv1(activated))))


class Normalize(nn.Module):
    """(x - mean) / std, by channel; without parameters, and not in the state dict: it belongs to the net's options."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Images) -> Images:
        """Images of mean 0 and standard deviation 1."""
        return (images - self.mean) / self.std


Normalization = Sequence[Sequence[float]] | None
"""(mean, standard deviation) of each channel of the training images; None: images are taken as they are."""


def normalized(stem: nn.Module, in_channels: int, normalization: Normalization) -> nn.Module:
    """A stem behind the normalization of its images, if there is one."""
    if normalization is None:
        return stem
    mean, std = normalization if len(normalization) == 2 else ((), ())
    if not (len(mean) == len(std) == in_channels and min(std) > 0):
        raise InvalidInput(
            f"normalization: expected (mean, std) with {in_channels} numbers each, all std > 0, got {normalization}."
        )
    return nn.Sequential(Normalize(mean, std), stem)


def convolution_stem(in_channels: int, width: int, normalization: Normalization = None) -> nn.Module:
    """The stem of OON: one 4x4 convolution of stride 2, no activation."""
    return normalized(nn.Conv2d(in_channels, width, 4, stride=2, padding=1), in_channels, normalization)


def residual_stem(in_channels: int, width: int, normalization: Normalization = None) -> nn.Module:
    """The stem of RES and MIX: a 3x3 convolution without padding and two residual blocks of stride 2."""
    stem = nn.Sequential(nn.Conv2d(in_channels, 64, 3), ResBlock(64, 64, stride=2), ResBlock(64, width, stride=2))
    return normalized(stem, in_channels, normalization)


def pooling_head(width: int, classes: int) -> nn.Module:
    """GN, ReLU, global average pooling, dropout of one half, and a linear layer."""
    return nn.Sequential(
        group_norm(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(width, classes)
    )


class TwoLogits(nn.Module):
    """One output y, (N, 1) or (N,), as the logits (-y, y) of two classes: softmax gives the second the probability
    sigmoid(2 y)."""

    def forward(self, output: Tensor) -> Tensor:
        """Logits (N, 2)."""
        output = output.reshape(-1, 1)
        return torch.cat([-output, output], 1)


def check_width(width: int) -> None:
    """Raise InvalidInput unless GroupNorm can divide `width` channels."""
    if width < 1 or (width > 32 and width % 32):
        raise InvalidInput(f"width: expected at most 32 or a multiple of 32 (GroupNorm has 32 groups), got {width}.")


def count_parameters(net: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
