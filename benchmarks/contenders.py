"""The same integration by odefend and by its peers: from a state after the stem to t = 1.

The peers evaluate the field as their users write it, with the time concatenated as a channel; odefend its folded form.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchode
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from odefend.models import ODENet
from odefend.models.layers import PreparedField, TimeConv
from odefend.solver import solve

Solve = Callable[[Tensor], Tensor]

EVALUATIONS = 6


class ConcatField(nn.Module):
    """The field with the parameters of an `ODEField` and the time as one more channel."""

    def __init__(self, net: ODENet) -> None:
        super().__init__()
        self.field = net.field

    def convolved(self, conv: TimeConv, t: Tensor, x: Tensor) -> Tensor:
        time = torch.ones_like(x[:, :1]) * t.view(-1, 1, 1, 1)
        return F.conv2d(torch.cat([time, x], 1), conv.weight, conv.bias, padding=1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        f, t = self.field, t.to(x.dtype)
        x = self.convolved(f.conv1, t, F.relu(f.norm1(x)))
        x = self.convolved(f.conv2, t, F.relu(f.norm2(x)))
        return f.norm3(x)


@dataclass(frozen=True)
class Contenders:
    """Ways of solving a net's ODE at one tolerance, by name."""

    net: ODENet
    tolerance: float

    def odefend(self, gradient: str = "unrolled") -> Solve:
        def run(y: Tensor) -> Tensor:
            field = PreparedField(self.net.field, *y.shape[2:])
            return solve(field, y, tolerance=self.tolerance, gradient=gradient).y

        return run

    def torchdiffeq(self) -> Solve:
        field, how = ConcatField(self.net), self.how
        return lambda y: odeint(field, y, torch.tensor([0.0, 1.0]), **how)[1]

    def torchdiffeq_adjoint(self) -> Solve:
        field, how = ConcatField(self.net), self.how
        return lambda y: odeint_adjoint(field, y, torch.tensor([0.0, 1.0]), **how)[1]

    def torchode(self) -> Solve:
        field = ConcatField(self.net)

        def run(y: Tensor) -> Tensor:
            def flat(t: Tensor, x: Tensor) -> Tensor:
                return field(t, x.view(-1, *y.shape[1:])).flatten(1)

            term = torchode.ODETerm(flat)
            control = torchode.IntegralController(atol=self.tolerance, rtol=self.tolerance, term=term)
            solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)
            ends = torch.zeros(len(y)), torch.ones(len(y))
            problem = torchode.InitialValueProblem(y0=y.flatten(1), t_start=ends[0], t_end=ends[1])
            return solver.solve(problem).ys[:, -1].view_as(y)

        return run

    def evaluations(self) -> Solve:
        """The folded field alone, EVALUATIONS times, one after the other as in a step: divided by these and times the mean NFE,
        the floor under any solver."""

        def run(y: Tensor) -> Tensor:
            field, t = PreparedField(self.net.field, *y.shape[2:]), torch.zeros(len(y))
            for _ in range(EVALUATIONS):
                y = field(t, y)
            return y

        return run

    @property
    def how(self) -> dict[str, object]:
        return {"rtol": self.tolerance, "atol": self.tolerance, "method": "dopri5"}
