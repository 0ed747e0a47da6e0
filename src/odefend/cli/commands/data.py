"""Data sets."""

from typing import Annotated

import typer

from odefend.cli.options import AsJson, DataDir, Quiet, use_data


def list_(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the data sets, and where they are or how much a download is."""
    from odefend.cli.data import run_list

    use_data(data_dir)
    run_list(as_json)


def fetch(
    name: Annotated[str, typer.Argument(help="mnist, fashion-mnist, cifar10 or tiny-imagenet-200.")],
    quiet: Quiet = False,
) -> None:
    """Download a data set from its publisher and check it; stopped, it goes on from the bytes that had come."""
    from odefend.cli.data import run_fetch

    run_fetch(name, quiet)


def check(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; default: all that are on this machine.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare files with their publishers' checksums, read all of them, and count each split and tell its digest.

    Exit status 1 if anything is wrong.
    """
    from odefend.cli.data import run_check

    use_data(data_dir)
    raise typer.Exit(run_check(names or [], as_json))
