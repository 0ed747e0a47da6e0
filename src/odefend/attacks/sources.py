"""Sources of gradients that ODE nets have and others have not."""

from odefend.errors import InvalidInput
from odefend.models import Adapted, Classifier, ODENet


def ode_sources(net: Classifier, tight: float = 1e-6, step: float = 0.1) -> dict[str, Classifier]:
    """The same net, solved and differentiated in other ways: for `strongest`, which keeps the best for each image.

    A loose solve can hide the direction in which the true solution is attacked, and each way of differentiating is wrong in
    its own manner: "own" (the net as it is), "tight" (at tolerance `tight`), "exact" (also through the step sizes),
    "adjoint" (the continuous adjoint at the net's tolerance), "tight adjoint" (both at `tight`) and "fixed steps" (rk4 with
    steps of size `step`, which has no control of errors that gradients could stumble over).
    """
    if not isinstance(net, ODENet | Adapted):
        raise InvalidInput(f"ode_sources: expected an ODE net, got {type(net).__name__}, which solves nothing.")
    return {
        "own": net,
        "tight": net.at(tight),
        "exact": net.at(gradient="exact"),
        "adjoint": net.at(gradient="adjoint"),
        "tight adjoint": net.at(tight, gradient="adjoint", adjoint_tolerance=tight),
        "fixed steps": net.at(method="rk4", step=step),
    }
