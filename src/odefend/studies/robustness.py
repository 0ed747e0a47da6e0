"""What nets are put to, whether a study or `odefend harden` asks: attacks in L-inf balls and past detectors, certificates by
smoothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from odefend.experiments import AttackPart, DetectorPart, MeasurePart, ModelPart, SourcePart
from odefend.metrics.certified import provable

ALPHA = 0.001
"""The largest probability that the certificate of an image is wrong."""

ALARMS = (0.01, 0.05)
"""Shares of clean images that a detector may reject."""


@dataclass(frozen=True)
class Effort:
    """How long attacks search: PGD of so many `steps` and `restarts`, APGD and FAB of `auto_steps`, Square of `queries`; the
    `draws` that a certificate is made of, and the `calibration` images that a threshold is set on."""

    steps: int = 40
    restarts: int = 2
    auto_steps: int = 30
    queries: int = 1000
    draws: int = 500
    calibration: int = 200


def in_balls(nets: Sequence[str], epsilons: Sequence[float], effort: Effort, few: int = 0) -> dict[str, AttackPart]:
    """Attacks in L-inf balls: PGD on cross-entropy and on the margin (the loss of C&W), along a net's own gradient and along those
    of surrogates, for whoever suspects that it leads nowhere; with `few`, the parts of AutoAttack on so many images, which need
    the extra `attacks`."""
    pgd = {"steps": effort.steps, "restarts": effort.restarts}
    own = {"PGD": pgd, "PGD, margin": pgd | {"loss": "margin"}}
    ball = {"epsilon": tuple(epsilons), "on": tuple(nets)}
    found = {name: AttackPart(attack="pgd", settings=settings, **ball) for name, settings in own.items()}
    found |= along_surrogates(nets, epsilons, effort)
    if few:
        length = {"steps": effort.auto_steps, "queries": effort.queries}
        parts = {"Square": ("square",), "APGD and FAB": ("apgd-ce", "apgd-t", "fab-t")}
        for name, some in parts.items():
            role = "black-box" if name == "Square" else "white-box"
            settings = length | {"attacks": some}
            found[name] = AttackPart(attack="autoattack", settings=settings, count=few, role=role, **ball)
    return found


def along_surrogates(nets: Sequence[str], epsilons: Sequence[float], effort: Effort) -> dict[str, AttackPart]:
    """PGD along the gradients of other solves of a net's ODE (tighter, looser, in fixed steps), and of another net."""
    pgd = {"attack": "pgd", "settings": {"steps": effort.steps // 2}, "epsilon": tuple(epsilons)}
    solves = {
        "a tighter solve": SourcePart(tolerance=1e-5),
        "a looser solve": SourcePart(tolerance=1e-1),
        "fixed steps": SourcePart(method="rk4", step=0.1),
    }
    others = {nets[0]: tuple(nets[1:]), nets[1]: (nets[0],)}
    return {
        **{f"PGD along {name}": AttackPart(source=how, on=tuple(nets), **pgd) for name, how in solves.items()},
        **{f"PGD from {net}": AttackPart(source=net, on=on, role="transfer", **pgd) for net, on in others.items()},
    }


ADAPTIVE = {
    "PGD, one draw": ("cross-entropy", 0.5),
    "PGD, few draws": ("cross-entropy", 0.5),
    "PGD, many draws": ("cross-entropy", 0.5),
    "PGD, margin": ("margin", 0.5),
    "PGD, long steps": ("margin", 1.0),
    "PGD, bare gradient": ("margin", 0.5),
}
"""Attacks of one who knows a defense: loss, and step size in radii."""


def knowing_the_defense(
    models: Sequence[str],
    bare: str,
    epsilon: float,
    steps: int = 25,
    followed: tuple[int, int] = (6, 24),
    count: int | None = None,
) -> dict[str, AttackPart]:
    """The attacks of one who knows a defense but not its draws: along the gradient of one draw, or of the mean of few or many
    (arXiv 1802.00420), and along that of the bare net, in case the defense's own is of no use. Each model meets as many, equally
    long."""
    few, many = followed
    draws = (1, few, many, few, few, few)
    return {
        name: AttackPart(
            attack="pgd",
            # Where an image will meet other draws, one just beyond the boundary is not enough.
            settings={"steps": steps, "step_size": part * epsilon, "loss": loss, "early_stop": False},
            epsilon=epsilon,
            on=tuple(models),
            source=bare if name == "PGD, bare gradient" else None,
            draws=draw,
            count=count,
            seed=seed,
            role="adaptive",
        )
        for seed, ((name, (loss, part)), draw) in enumerate(zip(ADAPTIVE.items(), draws, strict=True))
    }


def past_rejection(
    rejection: Mapping[str, DetectorPart], epsilons: tuple[float, ...], effort: Effort, images: int
) -> dict[str, AttackPart]:
    """Attacks on net and detector together: with their gradients joined in two ways, and by small steps with momentum on the
    margin from the clean image, which come farther where a net was trained to be unsure away from it."""
    both = {"on": tuple(one.model for one in rejection.values()), "epsilon": epsilons, "count": images}
    knows = {"knowing": tuple(rejection), "alarms": ALARMS, "role": "adaptive"}
    usual = {"steps": effort.steps, "restarts": effort.restarts}
    small = {"steps": 5 * effort.steps // 2, "loss": "margin", "momentum": 0.9, "random_start": False}
    joined = ("selective", "joint")
    return {
        "PGD, past": AttackPart(attack="pgd", settings=usual, combination=joined, **both, **knows),
        "PGD in small steps, past": AttackPart(attack="pgd", settings=small, **both, **knows),
    }


def smoothed_by(nets: Iterable[tuple[str, float, str]]) -> dict[str, ModelPart]:
    """Nets behind smoothing, each with the standard deviation of the noise and whether it is added to the input or the state, by
    names that say so."""
    places = {"input": "image", "state": "state"}
    return {
        f"{net}, sigma {sigma:g} in the {places[where]}": smoothed_model(net, sigma, where)
        for net, sigma, where in nets
    }


def smoothed_model(net: str, sigma: float, where: str = "input") -> ModelPart:
    """A net behind smoothing by Gaussian noise in the input, or in the state that the ODE starts from."""
    return ModelPart(net=net, defense={"name": "smoothing", "sigma": sigma, "where": where})


def certificates(models: Mapping[str, ModelPart], images: int, effort: Effort) -> MeasurePart:
    """What smoothing proves of the first so many images."""
    how = {"alpha": ALPHA}
    return MeasurePart(measure="certify", models=tuple(models), count=images, draws=effort.draws, settings=how)


def radii(nets: Iterable[tuple[str, float, str]], effort: Effort) -> tuple[float, ...]:
    """Steps of 1/20 up to the largest radius that the least noise of these can prove."""
    furthest = provable(effort.draws, ALPHA) * min(sigma for _, sigma, _ in nets)
    return tuple(step / 20 for step in range(int(20 * furthest) + 1))
