"""What a classifier can do that solves ODEs: the capability that tolerance defenses and watchers of a solver ask for."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odefend.errors import InvalidInput
from odefend.models.classifier import Classifier
from odefend.solver import METHODS, Solution, Status, Tolerance, accepted_steps
from odefend.tensors import Counts, Images, Index, Mask, PerImage


@dataclass(frozen=True)
class Steps:
    """What a solver did for each image, over all of the net's solves.

    `answered`: whether every solve succeeded. `attempts`: accepted and rejected steps. `sizes` and `errors`, (images, most
    steps): of the accepted steps in their order, the size and the RMS of the embedded estimate of the error; 0 after an
    image's last.
    """

    answered: Mask
    attempts: Counts
    sizes: Tensor
    errors: Tensor


class Solving(Classifier):
    """A classifier that solves ODEs by `solver.solve`: how they are solved can be chosen without touching its weights."""

    @abstractmethod
    def at(self, tolerance: Tolerance | None = None, **settings: Any) -> "Solving":
        """A view that shares the weights and solves at another tolerance (a float, (rtol, atol), or one value per
        image), or with others of the `SolverSettings`."""

    @abstractmethod
    def rows(self, index: Index) -> "Solving":
        """The view for the images at `index` of a batch."""

    @property
    @abstractmethod
    def tolerance(self) -> Tolerance | None:
        """The tolerance it is solved at; None where that is not known before it runs."""

    @property
    @abstractmethod
    def method(self) -> str | None:
        """The method it is solved by; None where that is not known before it runs."""

    @property
    @abstractmethod
    def solved(self) -> dict[str, Any]:
        """What was chosen of the settings that decide a solution, by name, as JSON can hold it. Raises InvalidInput for
        a setting for each image."""

    @abstractmethod
    def steps(self, images: Images) -> Steps:
        """What the solver does for each image; the errors are differentiable in the images, with the steps' times and
        sizes held constant. Raises InvalidInput for a method without step control."""

    @abstractmethod
    def effort(self, images: Tensor, grid: int = 8) -> PerImage:
        """How many solver steps each image will ask for, estimated on `grid` equal steps; differentiable: see
        `solver.effort`."""


def solving(net: Classifier, asking: str, *, controlled: bool = False) -> Solving:
    """The net, where it solves ODEs, and, if `controlled`, not in steps that are known to be fixed. Raises InvalidInput in the
    name of who is `asking` otherwise."""
    if not isinstance(net, Solving):
        raise InvalidInput(
            f"{asking}: expected a net that solves an ODE, such as an ODENet or an adapted one, got {type(net).__name__}."
        )
    if controlled and net.method is not None and not METHODS[net.method].adaptive:
        raise InvalidInput(
            f"{asking}: expected a net solved with step control, got one in fixed steps ({net.method}), which no tolerance "
            "changes. Choose an adaptive method, .at(1e-3, method='dopri5')."
        )
    return net


def steps_of(solutions: Sequence[Solution], errors: Sequence[Tensor]) -> Steps:
    """The steps of consecutive solves of the same images, from their logs; `errors`: of each, if they carry a gradient."""
    sizes, kept = [], []
    for solution, error in zip(solutions, errors, strict=True):
        assert solution.log is not None
        sizes.append(accepted_steps(solution.log, len(solution.y))[2])
        kept.append(error.double())
    size, error = torch.cat(sizes, 1), torch.cat(kept, 1)
    # The places after an image's last step in one solve lie between its steps in this and the next.
    order = torch.argsort((size == 0).to(torch.uint8), dim=1, stable=True)
    return Steps(
        torch.stack([solution.status == Status.SUCCESS for solution in solutions]).all(0),
        torch.stack([solution.stats.accepted + solution.stats.rejected for solution in solutions]).sum(0),
        size.gather(1, order),
        error.gather(1, order),
    )
