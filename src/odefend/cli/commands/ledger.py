"""The rows of experiments."""

from pathlib import Path
from typing import Annotated

import typer

from odefend.cli.options import AsJson, Seed


def columns(as_json: AsJson = False) -> None:
    """List the columns of every table, and what they mean."""
    from odefend.cli.ledger import run_columns

    run_columns(as_json)


def query(
    folder: Annotated[Path, typer.Argument(help="A folder with a ledger.")],
    sql: Annotated[str, typer.Argument(help="Such as: select net, avg(l2) from crafted where success group by net")],
    as_json: AsJson = False,
) -> None:
    """Ask the rows by SQL; the answer comes as CSV."""
    from odefend.cli.ledger import run_query

    run_query(folder, sql, as_json)


def merge(
    into: Annotated[Path, typer.Argument(help="The ledger that takes.")],
    folders: Annotated[list[Path], typer.Argument(help="Ledgers of other machines.")],
) -> None:
    """Take over what other ledgers have, rows, labels and images; what is there already stays."""
    from odefend.cli.ledger import run_merge

    run_merge(into, folders)


def pack(
    folder: Annotated[Path, typer.Argument(help="A folder with a ledger that nothing is writing to.")],
) -> None:
    """Put many small files into few: what a large experiment leaves is then read in a moment."""
    from odefend.cli.ledger import run_pack

    run_pack(folder)


def verify(
    folder: Annotated[Path, typer.Argument(help="A folder with a ledger and its images.")],
    sample: Annotated[
        int, typer.Option(min=1, help="How many rows, at most, of those crafted and of those judged.")
    ] = 100,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Show stored adversarial images to their nets again and compare; exit status 1 if a row is contradicted."""
    from odefend.cli.ledger import run_verify

    raise typer.Exit(run_verify(folder, sample, seed, as_json))
