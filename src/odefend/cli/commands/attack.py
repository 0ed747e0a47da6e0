"""Attacking one net."""

from pathlib import Path
from typing import Annotated

import typer

from odefend.cli.options import AsJson, Data, DataDir, DataOptions, Quiet, Seed, use_data


def attack(
    net: Annotated[
        str, typer.Argument(help="A trained net (see `odefend models`), a .safetensors file, or file.py:callable.")
    ],
    name: Annotated[str, typer.Option("--attack", help="An attack or a preset: see `odefend attacks`.")] = "fast",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the attack, as in epsilon=8/255 or norm=l2; repeatable."),
    ] = None,
    push: Annotated[
        float | None, typer.Option(min=0.01, help="Push what is found on by this factor, such as 1.1.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many images.")] = 100,
    start: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    sample: Annotated[
        int | None,
        typer.Option(help="Draw them at random by this seed; default: the first, which of MNIST are no sample."),
    ] = None,
    data_set: Data = None,
    options: DataOptions = None,
    split: Annotated[str, typer.Option(help="train, validation or test; of a folder of pictures also all.")] = "test",
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Solver tolerance under attack; default: that of training.")
    ] = None,
    gradient: Annotated[str, typer.Option(help="unrolled, exact, torchdiffeq, checkpoint or adjoint.")] = "unrolled",
    source: Annotated[
        str | None, typer.Option(help="Another net, or the same under --source-..., that gives the gradients.")
    ] = None,
    source_tolerance: Annotated[float | None, typer.Option(min=0, help="Tolerance of the source.")] = None,
    source_gradient: Annotated[str | None, typer.Option(help="Gradients of the source; default: unrolled.")] = None,
    source_adjoint_tolerance: Annotated[
        float | None, typer.Option(min=0, help="Of the source's adjoint, with --source-gradient adjoint.")
    ] = None,
    source_method: Annotated[
        str | None, typer.Option(help="Method of the source's solver, such as rk4; default: the net's own.")
    ] = None,
    source_step: Annotated[
        float | None, typer.Option(min=0, help="Its step size, for a method of fixed steps.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for rows and images.")] = Path("odefend-attack"),
    shard: Annotated[int, typer.Option(min=1, help="Images per piece of work: what is lost when stopped.")] = 50,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Attack a trained net; stopped in whatever way, it goes on when called again, and crafts nothing twice.

    Writes one row per image (`OUT/crafted/*.parquet`), the adversarial images (`OUT/images/*.safetensors`) and a figure of the
    attack's convergence, and tells what looks as if the attack had been weak.

    For example: `odefend attack mnist-oon --attack pgd --set epsilon=0.2 --set steps=40 --tolerance 1e-3`
    """
    from odefend.cli.attack import run_attack
    from odefend.cli.chosen import chosen_attack, chosen_data
    from odefend.engine import ModelSpec, Slice, opened_net
    from odefend.ledger import canonical

    use_data(data_dir)
    known = chosen_attack(name, settings or [], push)
    where, those = chosen_data(opened_net(net), data_set, options or [])
    how = {
        "tolerance": source_tolerance,
        "gradient": source_gradient,
        "adjoint_tolerance": source_adjoint_tolerance,
        "method": source_method,
        "step": source_step,
    }
    how = {key: value for key, value in how.items() if value is not None}
    run_attack(
        known,
        ModelSpec(net, tolerance, gradient),
        ModelSpec(source or net, **how) if source or how else None,
        Slice(where, split, start, start + images, sample=sample, options=canonical(those)),
        out,
        shard,
        workers,
        seed,
        quiet,
        as_json,
    )


def attacks(as_json: AsJson = False) -> None:
    """List the attacks, their settings, and presets with the reasons for them."""
    from odefend.cli.attack import run_attacks

    run_attacks(as_json)
