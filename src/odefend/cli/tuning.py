"""Tuning a defense."""

from pathlib import Path

from odefend.attacks import named_attack
from odefend.cli.output import console, print_json, show
from odefend.cli.progress import showing
from odefend.errors import InvalidInput
from odefend.evaluation.tuning import Tuning, candidates, record, tune
from odefend.files import make_folder, write_json
from odefend.models import load
from odefend.studies.hardened import view
from odefend.studies.tuning_report import evidence


def run_tune(
    net: str,
    defense: str,
    attack: str,
    response: str,
    epsilon: float | None,
    loss: float,
    images: int,
    out: Path,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """The settings of a defense, with their evidence."""
    card = load(net).card
    if card is None:
        raise InvalidInput(f"net: expected one with a card, which tells its data set, got {net}.")
    best = named_attack(response, {"epsilon": epsilon} if epsilon is not None else None)
    tuning = Tuning(
        view(net), card.data, candidates(defense), named_attack(attack), best, loss, images, images // 2, images // 4
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
    terminal = console()
    show(terminal, evidence(told))
    terminal.print(f"\nOperating point with its evidence: {path}", highlight=False, soft_wrap=True)
