"""Options that many commands have."""

import os
from pathlib import Path
from typing import Annotated

import typer

from odefend.errors import DataError

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of data sets, such as FOLDER/mnist; default: $ODEFEND_DATA.")
]

Data = Annotated[
    str | None,
    typer.Option("--data", help="A data set, or a folder of pictures; default: what the net was trained on."),
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("--data-set", help="An option of the data set, as in size=32 for pictures in a folder; repeatable."),
]

Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the random draws.")]


def use_data(folder: Path | None) -> None:
    """Let this process and those it starts find data sets in a folder."""
    if folder is not None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. Name the one that folders of data sets, such as mnist, are in.")
        os.environ["ODEFEND_DATA"] = str(folder.absolute())
