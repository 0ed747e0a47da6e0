"""Where the derivatives of step sizes have drowned the gradient."""

import torch
from torch import Tensor

from odefend.tensors import Index, State, Times

MOST = 1e4
"""How many times larger a gradient may become on the way from the end of a solve to its start."""


class Growth:
    """Watches in the backward pass of one solve how large the gradient of each sample becomes, and makes it NaN where it is more
    than MOST times as large as at the end.

    The smaller the tolerated error, the more its relative change, and with it the next step size, owes to a change of the
    state. Over many steps, above all where the field has kinks, such factors multiply, and what comes out is finite and has
    nothing to do with the solution. Below a tolerance of 1e-7, which resolves a true growth as well, more of it is let pass.
    """

    def __init__(self, rtol: Times) -> None:
        self.at_end = torch.zeros_like(rtol)
        self.most = (1e-3 / rtol).clamp_min(MOST)

    def come_from(self, y: State) -> None:
        """Gradients come in at these states of all samples."""

        def note(gradient: Tensor) -> None:
            self.at_end += _sizes(gradient)

        if y.requires_grad:
            y.register_hook(note)

    def watch(self, y: State, index: Index) -> None:
        """Gradients pass these states of the samples at `index`."""

        def bounded(gradient: Tensor) -> Tensor:
            bound = self.most[index] * self.at_end[index]
            beyond = (bound > 0) & (_sizes(gradient) > bound)
            return torch.where(beyond.view(-1, *[1] * (gradient.ndim - 1)), torch.nan, gradient)

        if y.requires_grad:
            y.register_hook(bounded)


def _sizes(gradient: Tensor) -> Times:
    return torch.linalg.vector_norm(gradient.detach().flatten(1), dim=1).double()
