"""The command line: `odefend COMMAND --help` tells about each command."""

import sys
import warnings
from typing import NoReturn

import typer

from odefend.cli.commands import attack, data, detector, evaluation, ledger, models, training
from odefend.errors import OdefendError

INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C


def _app() -> typer.Typer:
    """All commands, in the order in which help lists them."""
    app = typer.Typer(
        name="odefend",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        help="Train Neural-ODE image classifiers, attack them, judge them over solver tolerances, and report what holds.",
    )
    for command in (
        evaluation.demo,
        evaluation.evaluate,
        evaluation.report,
        evaluation.compare,
        evaluation.study,
        evaluation.tune,
        attack.attack,
        attack.attacks,
        training.train,
        training.harden,
        training.recipes,
    ):
        app.command()(command)
    nets = typer.Typer(help="Trained nets: list them, or fetch weights.")
    nets.callback(invoke_without_command=True)(models.list_)
    nets.command()(models.fetch)
    app.add_typer(nets, name="models")
    watchers = typer.Typer(no_args_is_help=True, help="Detectors of attacked images: list, fit, calibrate, score.")
    watchers.command("list")(detector.list_)
    for command in (detector.fit, detector.calibrate, detector.score):
        watchers.command()(command)
    app.add_typer(watchers, name="detector")
    sets = typer.Typer(no_args_is_help=True, help="Data sets: list, fetch, check.")
    sets.command("list")(data.list_)
    sets.command()(data.fetch)
    sets.command()(data.check)
    app.add_typer(sets, name="data")
    rows = typer.Typer(no_args_is_help=True, help="The rows of evaluations: columns, query, merge, pack, verify.")
    for command in (ledger.columns, ledger.query, ledger.merge, ledger.pack, ledger.verify):
        rows.command()(command)
    app.add_typer(rows, name="ledger")
    return app


app = _app()


def main() -> None:
    """Run the command line; a user's mistake gives one message and exit status 2, Ctrl-C gives 130."""
    warnings.filterwarnings("ignore", module=r"PIL\b")  # what is wrong with a picture we say ourselves
    try:
        status = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except OdefendError as error:
        _stop(str(error), 2)
    except Exception as error:
        # Wrong options: typer says what was expected; anything else is our own mistake and shows where.
        if not hasattr(error, "format_message"):
            raise
        message: str = error.format_message()  # type: ignore[attr-defined]
        if not message:  # no command: the help has been shown
            sys.exit(0)
        _stop(message.rstrip(".?") + ". Try --help.", 2)
    if status == INTERRUPTED:
        _stop("stopped. What was finished is kept; the same command goes on from there.", INTERRUPTED)
    sys.exit(status)


def _stop(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"odefend: {message}\n")
    sys.exit(status)
