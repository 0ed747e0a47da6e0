"""Tuning a defense."""

from dataclasses import fields
from pathlib import Path

from odefend.attacks import ATTACKS, PGD, PRESETS, Attack, named_attack
from odefend.cli.output import print_json, say, show
from odefend.cli.progress import showing
from odefend.evaluation.adaptive import Adaptive
from odefend.evaluation.tuning import Tuning, candidates, record, tune
from odefend.evaluation.views import as_trained, data_of
from odefend.files import make_folder, write_json
from odefend.report.tuning import evidence


def run_tune(
    net: str,
    defense: str,
    attack: str,
    epsilon: str,
    loss: float,
    images: int,
    out: Path,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """The settings of a defense, with their evidence."""
    data, view, ball = data_of(net), as_trained(net), named_attack("pgd", {"epsilon": epsilon})
    assert isinstance(ball, PGD)
    tuning = Tuning(
        view,
        data,
        candidates(defense, view),
        _attack(attack, epsilon),
        Adaptive(ball.epsilon),
        loss,
        images,
        images // 2,
        images // 4,
    )
    with showing(quiet) as progress:
        point, found = tune(tuning, out / "ledger", progress, workers)
    told = record(tuning, point, found)
    make_folder(out)
    path = out / f"{defense}.json"
    write_json(path, told)
    if as_json:
        print_json(told | {"file": str(path)})
        return
    show(evidence(told))
    say("", f"Operating point with its evidence: {path}")


def _attack(name: str, epsilon: str) -> Attack:
    """An attack by its name, in a ball of that radius if it is one in a ball."""
    kind = ATTACKS.get(name) or (type(PRESETS[name].attack) if name in PRESETS else None)
    in_ball = kind is not None and "epsilon" in {field.name for field in fields(kind)}
    return named_attack(name, {"epsilon": epsilon} if in_ball else None)
