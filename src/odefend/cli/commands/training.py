"""Training nets by recipes."""

from pathlib import Path
from typing import Annotated

import typer

from odefend.cli.options import AsJson, DataDir, Quiet, use_data


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (see `odefend recipes`) or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights and their card.")] = Path("runs"),
    scale: Annotated[
        str, typer.Option(help="smoke (seconds), desk (an hour on two cores), paper (as published).")
    ] = "desk",
    seed: Annotated[int | None, typer.Option(help="Replaces the recipe's seed; the net's name then tells it.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Replaces the recipe's number of epochs.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="32-true, 64-true or bf16-mixed; replaces the recipe's.")
    ] = None,
    trial: Annotated[
        int | None, typer.Option(min=1, help="Run only so many steps, tell how long all would take, and keep nothing.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda, mps: what Lightning Fabric knows.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices per node.")] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, help="Nodes; start the same command on each, as Fabric's launchers do.")
    ] = 1,
    strategy: Annotated[str, typer.Option(help="How devices share the work: auto, ddp, ...")] = "auto",
    tampering: Annotated[
        str | None,
        typer.Option(help="For forensic recipes: what to detect, such as jpeg-60-444; the name then tells it."),
    ] = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a net by a recipe; stopped in whatever way, it goes on when called again.

    Writes OUT/NAME.safetensors and OUT/NAME.json, a card with the course of the training and the measured test accuracy and
    its interval. Load the result in Python with `odefend.load("OUT/NAME.safetensors")`.

    Data sets are taken from --data-dir, or $ODEFEND_DATA, or else downloaded from their publishers and checked.
    """
    from odefend.cli.training import run_train, run_trial

    use_data(data_dir)
    changes = {"seed": seed, "epochs": epochs, "precision": precision, "tampering": tampering}
    changes = {key: value for key, value in changes.items() if value is not None}
    fabric = {"accelerator": accelerator, "devices": devices, "num_nodes": nodes, "strategy": strategy}
    if trial is not None:
        run_trial(recipe, scale, changes, trial, fabric, quiet, as_json)
        return
    run_train(recipe, scale, changes, out, fabric, quiet, as_json)


def harden(
    net: Annotated[str, typer.Argument(help="A net of the zoo, or a .safetensors file with its card.")],
    method: Annotated[
        str, typer.Option(help="adversarial: against PGD in a ball; smoothing: under noise, for certificates.")
    ] = "adversarial",
    strength: Annotated[
        float, typer.Option(min=0.0, help="Radius of the L-inf ball, or standard deviation of the noise.")
    ] = 0.1,
    minutes: Annotated[float, typer.Option(min=0.0, help="For the training; measuring comes on top.")] = 30.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for weights and ledger; default: odefend-harden-NET-METHOD.")
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="Test images to measure both nets on.")] = 200,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that measure; default: one per core.")] = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a net further so that it becomes more robust, and show what that gained and what it cost.

    A few steps tell how many epochs fit into the minutes. The net is trained from its own weights, on its own data and by its
    own solver, against attacks (Madry et al., arXiv 1706.06083) or under noise (Cohen et al., arXiv 1902.02918), and then
    measured beside what it was: clean accuracy, robust accuracy under several attacks, certified accuracy, evaluations of
    the ODE. Stopped in whatever way, it goes on when called again.
    """
    from odefend.cli.hardening import run_harden

    use_data(data_dir)
    folder = out or Path(f"odefend-harden-{Path(net).stem}-{method}")
    run_harden(net, method, strength, minutes, folder, images, workers, quiet, as_json)


def recipes(as_json: AsJson = False) -> None:
    """List the recipes: every net of the papers, at the scales smoke, desk and paper."""
    from odefend.cli.training import run_recipes

    run_recipes(as_json)
