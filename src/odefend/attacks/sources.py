"""Sources of gradients that ODE nets have and others have not."""

import torch

from odefend.models import Classifier, Solving, solving
from odefend.solver import METHODS

EXACT_FROM = 1e-4
"""Of 24 images of digits-oon, at 3e-5 the exact gradient of one was 22 times that along the steps, with a cosine of .1 to that of
the solution; at 1e-6 that of half of them more than 30 times. mnist-oon and mnist-mix last down to 1e-6."""


def ode_sources(net: Classifier, tight: float = 1e-6, step: float = 0.1) -> dict[str, Classifier]:
    """The same net, solved and differentiated in other ways: for `strongest`, which keeps the best for each image.

    A loose solve can hide the direction in which the true solution is attacked, and each way of differentiating is wrong in
    its own manner: "own" (the net as it is), "tight" (at tolerance `tight`), "exact" (also through the step sizes; only where
    the net's tolerance is 1e-4 or more, below which their derivatives can drown the gradient), "adjoint" (the continuous
    adjoint at the net's tolerance), "tight adjoint" (both at `tight`) and "fixed steps" (rk4 with steps of size `step`, which
    has no control of errors that gradients could stumble over).

    Of a net that takes fixed steps, or an adapted one whose method was not chosen, the tight solves are by dopri5.
    """
    net = solving(net, "ode_sources")
    controlled = net.method if net.method and METHODS[net.method].adaptive else "dopri5"
    return {
        "own": net,
        "tight": net.at(tight, method=controlled),
        **({"exact": net.at(gradient="exact")} if _loose(net) else {}),
        "adjoint": net.at(gradient="adjoint"),
        "tight adjoint": net.at(tight, method=controlled, gradient="adjoint", adjoint_tolerance=tight),
        "fixed steps": net.at(method="rk4", step=step),
    }


def _loose(net: Solving) -> bool:
    """Whether the net has chosen a tolerance at which exact gradients were seen to be gradients, for all its images."""
    values = net.tolerance if isinstance(net.tolerance, tuple) else (net.tolerance,)
    return all(value is not None and bool((torch.as_tensor(value) >= EXACT_FROM).all()) for value in values)
