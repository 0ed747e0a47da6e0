"""The defenses of test time on trial: each at settings tuned on validation images, before attackers who do not know of it, who know
a similar net, and who know it; beside noise of the same dose and cost."""

from functools import partial
from typing import Any

from odefend.experiments import AttackPart, DataPart, Experiment, MeasurePart, ModelPart
from odefend.studies.defense_tables import (
    BARE,
    SCALES,
    Points,
    ball_table,
    beside,
    cw_table,
    draws_table,
    noise,
    under_attack,
    votes_on,
)
from odefend.studies.robustness import knowing_the_defense

EPSILON = 0.1
DIGITS: Points = {
    "tolerance": ({"tolerance": 10.0}, 0.2),
    "random-tolerance": ({"distribution": {"low": 1e-3, "high": 10.0}}, 0.1),
    "end-time": ({"t1": 0.8}, 0.005),
    "random-end-time": ({"low": 0.5, "high": 1.5}, 0.01),
    "input-noise": ({"sigma": 0.1}, None),
    "input-transform": ({"tampering": "jpeg-50-444"}, 0.1),
    "bit-depth": ({"bits": 2}, 0.1),
    "purification": ({}, 0.2),
}
"""Each defense's settings, chosen on validation images to cost at most 1 % of clean accuracy (purification costs more, and has no
others), and noise of about its dose on their margins: the nearest of a few levels, so that defenses share the attacks on one."""
MNIST: Points = {
    "tolerance": ({"tolerance": 10.0}, 0.1),
    "random-tolerance": ({"distribution": {"low": 1e-4, "high": 1.0}}, 0.05),
    "end-time": ({"t1": 1.5}, 0.1),
    "input-noise": ({"sigma": 0.15}, None),
    "input-transform": ({"tampering": "jpeg-50-444"}, 0.05),
    "bit-depth": ({"bits": 1}, 0.2),
    "purification": ({}, 0.2),
}


def defenses(
    images: int = 200,
    name: str = "defenses",
    net: str = "digits-oon",
    twin: str = "digits-res",
    data: str = "digits",
    points: Points = DIGITS,
    steps: int = 25,
    followed: tuple[int, int] = (6, 24),
    search: tuple[int, int] = (60, 4),
    nearest: int = 4,
    judged: int = 5,
    votes: int = 10,
    shard: int = 50,
) -> Experiment:
    """So many test images are attacked by PGD of so many `steps`: on the bare net, on a similar one (the `twin`), and on each
    defense; one in `nearest` of them also by a C&W `search` of so many steps and rounds. Judges take `judged` draws of a random
    defense that no attack has seen; an average or a vote is over so many `votes` draws."""
    models = {BARE: ModelPart(net=net), **behind(net, points, votes)}
    bases = votes_on(points)
    attacked = tuple(model for model in models if model not in bases)
    adaptive = knowing_the_defense(attacked, BARE, EPSILON, steps, followed)
    usual: dict[str, Any] = {"attack": "pgd", "epsilon": EPSILON, "settings": adaptive["PGD, one draw"].settings}
    oblivious = {
        "PGD": AttackPart(on=BARE, role="oblivious", **usual),
        "PGD, transferred": AttackPart(on="twin", role="transfer", **usual),
    }
    cw = {"steps": search[0], "binary_search_steps": search[1], "learning_rate": 0.1, "initial_constant": 1.0}
    least: dict[str, Any] = {"attack": "carlini-wagner", "settings": cw, "count": max(1, images // nearest)}
    everyone: dict[str, Any] = {"measure": "predict", "models": tuple(models), "draws": judged}
    own = (*adaptive, "C&W, adaptive")
    rows, in_ball = beside(points, votes), (*oblivious, *adaptive)
    return Experiment(
        name=name,
        title=f"Defenses of {net}",
        data={"test": DataPart(set=data, count=images, sample=0)},
        models=models | {"twin": ModelPart(net=twin)},
        attacks={
            **oblivious,
            **adaptive,
            "C&W": AttackPart(on=BARE, role="oblivious", **least),
            "C&W, adaptive": AttackPart(on=attacked[1:], role="adaptive", draws=followed[0], **least),
        },
        measures={
            "clean": MeasurePart(**everyone),
            "oblivious": MeasurePart(images=tuple(oblivious), pairing="each", **everyone),
            "scaled": MeasurePart(images="C&W", scales=SCALES, pairing="each", **everyone),
            "adaptive": MeasurePart(measure="predict", images=own, models=attacked, draws=judged),
            **{
                f"adaptive, {vote}": MeasurePart(
                    measure="predict", images=own, models=vote, made_on=base, pairing="each", draws=judged
                )
                for vote, base in bases.items()
            },
        },
        tables=(
            ball_table(net, rows, in_ball, tuple(adaptive), ball_note(twin, steps, followed, judged)),
            cw_table(net, rows, search),
            draws_table(net, rows, followed),
        ),
        figures=(under_attack(net, rows, tuple(oblivious), in_ball),),
        shard=shard,
    )


def behind(net: str, points: Points, votes: int) -> dict[str, ModelPart]:
    """The net behind each defense, the noise beside them, and averages of and votes on draws."""
    found = {
        name: ModelPart(net=net, defense={"name": name} | dict(settings)) for name, (settings, _) in points.items()
    }
    for sigma in dict.fromkeys(sigma for _, sigma in points.values() if sigma is not None):
        found.setdefault(noise(points, sigma), ModelPart(net=net, defense={"name": "input-noise", "sigma": sigma}))
    for vote, base in votes_on(points).items():
        how = {"name": vote.rpartition(", ")[2], "defense": found[base].defense, "draws": votes}
        found[vote] = ModelPart(net=net, defense=how)
    return found


def ball_note(twin: str, steps: int, followed: tuple[int, int], judged: int) -> str:
    """What the attacks in the ball are."""
    few, many = followed
    return (
        f"Right, of {{images}} that met every attack in an L-inf ball of {EPSILON:g}; of random defenses the mean over {judged} "
        "draws that no attack has seen, where the attack on each image is chosen under the other draws than the one that judges "
        f"it. PGD of {steps} steps: made on the bare net; transferred: on {twin}; adaptive: the worst case for each image of the "
        "attacks of one who knows the defense but not its draws: by steps of half the radius on cross-entropy along the mean of 1, "
        f"{few} and {many} draws, and on the margin along {few} draws and along the bare net's gradient; by steps of the radius on "
        f'the margin along {few} draws. Equal noise: of about the same dose on clean margins, at as many passes; "-": not run. '
        "Differences are of accuracy under all attacks, in points, paired."
    )


defenses_mnist = partial(
    defenses,
    name="defenses-mnist",
    net="mnist-oon",
    twin="mnist-oon-matched",
    data="mnist",
    points=MNIST,
    steps=10,
    followed=(3, 9),
    search=(40, 3),
    nearest=12,
    judged=3,
    votes=4,
)
"""On MNIST, where a gradient costs more."""
