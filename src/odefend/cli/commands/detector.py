"""Detectors: list, fit, calibrate, score."""

from pathlib import Path
from typing import Annotated

import typer

from odefend.cli.options import AsJson, Data, DataDir, DataOptions, Quiet, use_data

File = Annotated[Path, typer.Argument(help="A file that `odefend detector fit` wrote.")]
Net = Annotated[
    str | None,
    typer.Option("--net", help="The net, where it is not in the zoo: a .safetensors file of the same weights."),
]


def list_(as_json: AsJson = False) -> None:
    """List the detectors: what each looks at, what it must learn, and its settings."""
    from odefend.cli.detector import run_list

    run_list(as_json)


def fit(
    name: Annotated[str, typer.Argument(help="A detector: see `odefend detector list`.")],
    net: Annotated[str, typer.Argument(help="The net it stands beside: a name of the zoo or a .safetensors file.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the detector, as in votes=10; repeatable.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Solver tolerance of the net; default: that of training.")
    ] = None,
    data: Data = None,
    options: DataOptions = None,
    images: Annotated[int, typer.Option(min=2, help="Training images that it learns from.")] = 1000,
    attack: Annotated[str, typer.Option(help="For supervised detectors: the attack they are shown.")] = "pgd",
    attack_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--attack-set", help="A setting of that attack, as in steps=40; repeatable. A radius is 0.1 unless set."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file; default: NAME-NET.safetensors.")] = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
) -> None:
    """Let a detector learn what it must from training images, and write it to a file.

    For example: `odefend detector fit step-trace digits-oon`
    """
    from odefend.cli.detector import run_fit

    use_data(data_dir)
    run_fit(
        name, net, settings or [], tolerance, data, options or [], images, attack, attack_settings or [], out, quiet
    )


def calibrate(
    file: File,
    net: Net = None,
    data: Data = None,
    options: DataOptions = None,
    images: Annotated[int, typer.Option(min=2, help="Validation images.")] = 500,
    data_dir: DataDir = None,
    quiet: Quiet = False,
) -> None:
    """Score clean validation images, so that a threshold can be set for a stated share of false alarms; written into the file.

    With n images no share below 1 / (n + 1) can be promised.
    """
    from odefend.cli.detector import run_calibrate

    use_data(data_dir)
    run_calibrate(file, net, data, options or [], images, quiet)


def score(
    file: File,
    pictures: Annotated[
        list[Path] | None, typer.Argument(help="Pictures, or folders of them; default: test images of the data set.")
    ] = None,
    net: Net = None,
    data: Data = None,
    options: DataOptions = None,
    images: Annotated[int, typer.Option(min=1, help="Test images, where no pictures are named.")] = 100,
    allowed: Annotated[float, typer.Option(min=0, max=1, help="The share of false alarms that is allowed.")] = 0.05,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score images with a calibrated detector: score, p-value and alarm of each, or why it is not calibrated for such an image.

    Exit status 1 where a picture could not be read; the others are scored all the same.

    For example: `odefend detector score step-trace-digits-oon.safetensors scans/ --allowed 0.01`
    """
    from odefend.cli.detector import run_score

    use_data(data_dir)
    raise typer.Exit(run_score(file, pictures or [], net, data, options or [], images, allowed, quiet, as_json))
