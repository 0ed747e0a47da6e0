"""The Classifier noun: images in [0, 1] to logits, with an account of the work done for each image."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from odefend.errors import InvalidInput
from odefend.models.card import Card
from odefend.solver import Status
from odefend.tensors import Counts, Images, Index, Labels, Logits, Mask
from odefend.threads import threads_for


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of each image, and at what cost.

    `nfe`, `accepted` and `rejected` count evaluations of the vector field and solver steps (0 for nets without a
    solver); `status` is a `solver.Status`.
    """

    logits: Logits
    nfe: Counts
    accepted: Counts
    rejected: Counts
    status: Counts

    @property
    def labels(self) -> Labels:
        """The class of the largest logit, also where the solver failed: see `answered`."""
        return self.logits.argmax(1)

    @property
    def answered(self) -> Mask:
        """Where the solver succeeded; elsewhere the classifier abstains, which is neither right nor fooled."""
        return self.status == Status.SUCCESS

    def correct(self, labels: Labels) -> Mask:
        """Where the classifier answers, and with the true label."""
        return self.answered & (self.labels == labels)

    def fooled(self, labels: Labels) -> Mask:
        """Where the classifier answers, and with another label than the true one."""
        return self.answered & (self.labels != labels)

    def first(self, count: int) -> "Prediction":
        """What is said of the first `count` images, without the graph behind it."""
        return Prediction(**{name: value[:count].detach() for name, value in vars(self).items()})

    def checked(self) -> "Prediction":
        """The same, where logits that are not numbers are no answer, whatever the solver thought of its own part."""
        broken = ~torch.isfinite(self.logits).all(1) & self.answered
        return replace(self, status=torch.where(broken, int(Status.NON_FINITE), self.status))

    @property
    def margin(self) -> Tensor:
        """Largest minus second largest logit of each image; >= 0."""
        top = self.logits.topk(2, dim=1).values
        return top[:, 0] - top[:, 1]


def join(parts: Sequence[Prediction]) -> Prediction:
    """The predictions of consecutive batches as one."""
    return Prediction(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})


class Classifier(nn.Module, ABC):
    """A network that takes images (N, channels, H, W) in [0, 1]; any normalization happens inside.

    Subclasses implement `classify`. Users call `predict`, or the module itself for bare logits. `card` says where a
    trained net comes from, `source` is the digest of the user's file that built it; None for one that was not loaded.
    """

    card: Card | None
    source: str | None = None

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.card = None

    @abstractmethod
    def classify(self, images: Images) -> Prediction:
        """The prediction for images that have been checked; differentiable."""

    def predict(self, images: Tensor) -> Prediction:
        """The prediction for each image. Raises InvalidInput for images of the wrong shape, type, precision or range."""
        check_images(images, self.in_channels)
        self._check_precision(images.dtype)
        with threads_for(images.numel()):
            return self.classify(images).checked()

    def _check_precision(self, given: torch.dtype) -> None:
        """Raise InvalidInput for images in single precision where all weights are in double, or the other way round."""
        of_weights = {weight.dtype for weight in self.parameters()} & {torch.float32, torch.float64}
        if len(of_weights) == 1 and given not in of_weights and not _autocast_to(given):
            (wanted,) = of_weights
            raise InvalidInput(
                f"images: expected {wanted} as the net's weights are, got {given}. Convert them, images.to({wanted}), or the "
                f"net, net.to({given})."
            )

    def forward(self, images: Tensor) -> Logits:
        """The logits of `predict`."""
        return self.predict(images).logits

    def rows(self, index: Index) -> "Classifier":  # noqa: ARG002
        """The classifier for the images at `index` of a batch, each of them once or several times: a view whose per-image
        state is subset too, and itself where there is none."""
        return self


def _autocast_to(given: torch.dtype) -> bool:
    """Whether autocast computes in this type, to which Fabric converts images in training."""
    return any(torch.is_autocast_enabled(at) and torch.get_autocast_dtype(at) == given for at in ("cpu", "cuda"))


def check_images(images: Any, in_channels: int, size: int | None = None) -> None:
    """Raise InvalidInput unless these are floating-point images (N, in_channels, H, W) with values in [0, 1], and H and W are
    `size` where that is given."""
    if not isinstance(images, Tensor):
        raise InvalidInput(
            f"images: expected a torch.Tensor, got {type(images).__name__}. Use torch.as_tensor(images)."
        )
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise InvalidInput(
            f"images: expected shape (N, {in_channels}, height, width), got {tuple(images.shape)}. "
            "A single image needs a batch axis: image[None]."
        )
    if size is not None and images.shape[2:] != (size, size):
        raise InvalidInput(f"images: expected {size} x {size} pixels, got {images.shape[2]} x {images.shape[3]}.")
    if not images.is_floating_point():
        raise InvalidInput(f"images: expected floating-point values in [0, 1], got {images.dtype}. Try images / 255.")
    if images.dtype not in (torch.float32, torch.float64) and not _autocast_to(images.dtype):
        raise InvalidInput(f"images: expected torch.float32 or torch.float64, got {images.dtype}. Use images.float().")
    if images.numel():
        low, high = (bound.item() for bound in images.detach().aminmax())
        # Written so that NaN, of which every comparison is false, is refused as well.
        if not (low >= 0 and high <= 1):
            raise InvalidInput(
                f"images: expected values in [0, 1], got {low:.4g} to {high:.4g}. Normalization belongs inside the "
                "classifier; pictures in 0..255 must be divided by 255."
            )


def checked_labels(labels: Any, count: int, classes: int) -> Labels:
    """Labels as int64; raises InvalidInput unless they are a tensor (count,) of integers in 0..classes - 1."""
    if not isinstance(labels, Tensor):
        raise InvalidInput(
            f"labels: expected a torch.Tensor, got {type(labels).__name__}. Use torch.as_tensor(labels)."
        )
    if labels.shape != (count,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InvalidInput(
            f"labels: expected {count} class indices, integers of shape ({count},), got {labels.dtype} of shape "
            f"{tuple(labels.shape)}. One-hot labels become indices by labels.argmax(1), others by labels.flatten().long()."
        )
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InvalidInput(
            f"labels: expected values in 0..{classes - 1}, got {int(labels.min())} to {int(labels.max())}."
        )
    return labels.long()


def check_ids(ids: Sequence[str], count: int) -> None:
    """Raise InvalidInput unless there are `count` strings."""
    for name in ids:
        if not isinstance(name, str):
            raise InvalidInput(f"ids: expected strings, got {type(name).__name__}. Use [str(one) for one in ids].")
    if len(ids) != count:
        raise InvalidInput(f"ids: expected one for each of {count} images, got {len(ids)}.")


def check_evaluating(*nets: nn.Module) -> None:
    """Raise InvalidInput for a net in training mode, whose answers are random under dropout and depend on their neighbours
    under batch norm."""
    for net in nets:
        # Views share their parts, so the top module's own flag does not tell.
        if any(module.training for module in net.modules()):
            raise InvalidInput("the net is in training mode, in which dropout makes it random. Call net.eval() first.")


def no_work(logits: Logits) -> Prediction:
    """The prediction of a net that has no solver."""
    none = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return Prediction(logits, none, none, none, none)
