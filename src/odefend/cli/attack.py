"""Attacks on a trained net, and the list of attacks."""

from dataclasses import MISSING, fields, replace
from pathlib import Path

import polars as pl

from odefend import intervals
from odefend.attacks import ATTACKS, PRESETS, Attack, check_setup
from odefend.cli.output import print_json, say, show, table_json
from odefend.cli.progress import showing
from odefend.data import tell_of_fewer
from odefend.engine import Craft, ModelSpec, Runner, Slice, Task, as_trained
from odefend.errors import InvalidInput
from odefend.files import write_text
from odefend.ledger import Label
from odefend.metrics import signs
from odefend.metrics.rows import attacked
from odefend.report import Table
from odefend.report.convergence import convergence

EXPERIMENT = "attack"
LOOKED_AT = 64
"""Images that the check at the start looks at."""


def run_attack(
    attack: Attack, model: ModelSpec, source: ModelSpec | None, images: Slice, out: Path, shard: int, workers: int | None,
    seed: int, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Attack, store, and tell."""
    model, source = _at_home(model), source and _at_home(source)
    data = images.open()
    if not len(data):
        raise InvalidInput(f"images: expected some between {images.start} and {images.stop}, the split ends before.")
    tell_of_fewer(images.data, images.split, images.stop - images.start, len(data))
    some = data[:LOOKED_AT]
    warnings = check_setup(model.open(), some.images, some.labels)
    if source is not None:
        said = check_setup(source.open(), some.images, some.labels)
        warnings += [f"the source of gradients: {text}" for text in said if text not in warnings]
    stop = images.start + len(data)
    units = [
        Craft(attack, model, replace(images, start=at, stop=min(at + shard, stop)), source, seed)
        for at in range(images.start, stop, shard)
    ]
    with showing(quiet) as progress, Runner(out, workers) as runner:
        progress.stage(f"{attack.name} on {model.net}", sum(unit.cost for unit in units))
        label = Label("craft", model.net, attack.name, images.data)
        runner.run([Task(unit, label) for unit in units], progress.advance, EXPERIMENT)
        rows = pl.concat([runner.ledger.read_shard("crafted", unit.key) for unit in units])
    rows = rows.with_columns(attack=pl.lit(attack.name))
    figure = out / f"convergence-{units[0].key[:8]}.svg"
    write_text(figure, convergence(rows))
    tables = [_result(rows, attack), _signs(rows, attack, warnings)]
    if as_json:
        print_json(
            {
                "ledger": str(out),
                "keys": [unit.key for unit in units],
                "figure": str(figure),
                "warnings": warnings,
                "tables": [table_json(table) for table in tables],
            }
        )
        return
    show(*tables)
    say("", f"Ledger and images: {out}", f"Convergence: {figure}")


def run_attacks(as_json: bool) -> None:
    """What there is to attack with."""
    kinds = Table(
        "Attacks",
        ("name", "settings"),
        tuple((name, _settings(kind)) for name, kind in ATTACKS.items()),
        "Set them by --set NAME=VALUE. Pixels are in [0, 1]; norm is linf, l2 or rms; those without epsilon seek the nearest.",
    )
    presets = Table(
        "Presets",
        ("name", "what and why"),
        tuple((name, preset.reason) for name, preset in PRESETS.items()),
        "Their settings can be replaced by --set as well.",
    )
    if as_json:
        print_json([table_json(table) for table in (kinds, presets)])
        return
    show(kinds, presets)


def _at_home(model: ModelSpec) -> ModelSpec:
    """A model that solves an ODE is at the tolerance of its training unless another was asked for; others are at none."""
    if not model.solves:
        for what in ("tolerance", "adjoint_tolerance", "method", "step"):
            if (value := getattr(model, what)) is not None:
                raise InvalidInput(f"{what}: expected none for {model.net}, which solves nothing, got {value}.")
        return model
    if model.adjoint_tolerance is not None and model.gradient != "adjoint":
        raise InvalidInput(f"adjoint_tolerance: expected adjoint gradients with it, got {model.gradient} ones.")
    return model if model.tolerance is not None else replace(model, tolerance=as_trained(model.net).tolerance)


def _settings(kind: type[Attack]) -> str:
    """As in "epsilon, norm=linf, steps=20"; what has no default comes without a value."""
    told = []
    for field in fields(kind):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        shown = getattr(default, "name", default)
        told.append(field.name if default is MISSING else f"{field.name}={'' if shown is None else shown}")
    return ", ".join(sorted(told, key=lambda text: "=" in text))


def _result(rows: pl.DataFrame, attack: Attack) -> Table:
    """How many fell, and how near."""
    tried = attacked(rows)
    hits = tried.filter("success")
    precision = rows["search_precision"][0]
    cells = (
        str(rows.height),
        str(rows.height - tried.height),
        intervals.rate(hits.height, tried.height).percent,
        intervals.mean(hits["distance"].to_numpy()).text(4) if hits.height else "-",
        f"{hits['distance'].median():.4f}" if hits.height else "-",
        f"{(tried['gradient_calls'].mean() or 0):.0f} / {(tried['forward_calls'].mean() or 0):.0f}",
    )
    solved = f", tolerance {rows['rtol'][0]:g}, {rows['gradient'][0]} gradients" if rows["rtol"][0] is not None else ""
    return Table(
        f"{attack.name} on {rows['net'][0]}",
        (
            "images",
            "wrong before",
            "broken",
            f"mean {attack.norm_name}",
            f"median {attack.norm_name}",
            "gradients / answers",
        ),
        (cells,),
        f"Of the images that were right before, with 95 % intervals{solved}; gradients of {rows['source'][0]}, search precision "
        f"{precision}. {rows['settings'][0]}",
    )


def _signs(rows: pl.DataFrame, attack: Attack, warnings: list[str]) -> Table:
    """What says that the attack may have been weaker than it could be."""
    found = [signs.gradients(rows)]
    if attack.budget is None:
        found.append(signs.converged(rows))
    cells = [("failed", "The attack and the net fit together", text) for text in warnings]
    return Table(
        "Was the attack weak?",
        ("check", "what must hold", "what was found"),
        (*cells, *((check.outcome, check.statement, check.finding) for check in found)),
        "Checks that pass do not make a net robust: try other attacks, other sources and more steps as well.",
    )
