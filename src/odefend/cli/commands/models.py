"""Trained nets."""

from typing import Annotated

import typer

from odefend.cli.options import AsJson, Quiet


def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the trained nets: what they are, how well they do, and whether their weights are here."""
    if context.invoked_subcommand is None:
        from odefend.cli.models import run_models

        run_models(as_json)


def fetch(
    names: Annotated[list[str], typer.Argument(help="Names of trained nets, or `all`.")],
    source: Annotated[
        str | None, typer.Option(help="Folder or address that the weights lie in; default: $ODEFEND_ZOO.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Get the weights that did not come with the package, and check them against their cards."""
    from odefend.cli.models import run_fetch

    run_fetch(names, source, quiet)
