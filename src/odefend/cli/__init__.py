"""The command line: `odefend COMMAND --help` tells about each command."""

import io
import sys
import warnings
from typing import Annotated, NoReturn

import typer

from odefend.cli.commands import attack, data, detector, evaluation, ledger, models, training
from odefend.cli.console import lost, warn, write
from odefend.errors import Interrupted, OdefendError, OdefendWarning
from odefend.version import VERSION

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
    app.callback()(_version)
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


def _print_version(asked: bool) -> bool:
    if asked:
        write(f"odefend {VERSION}\n")
        raise typer.Exit
    return asked


def _version(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Which odefend this is.")
    ] = False,
) -> None:
    """Options of odefend itself."""


app = _app()


def main() -> None:
    """Run the command line; a user's mistake gives one message and exit status 2, Ctrl-C gives 130."""
    if sys.stdout is None:  # as Python has it where it was closed
        _stop("standard output is closed. Send it somewhere, such as to a file.", 2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal's encoding lacks is no reason to stop
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")  # what is wrong with a picture we say ourselves
        warnings.simplefilter("default", OdefendWarning)
        warnings.showwarning = _tell
        sys.exit(_run())


def _run() -> int | None:
    """A command's exit status."""
    try:
        status = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Interrupted as error:
        _stop(str(error), INTERRUPTED)
    except OdefendError as error:
        _stop(str(error), 2)
    except Exception as error:
        if isinstance(error, OSError) and (reason := lost(error)):
            _stop(reason, 2)
        # Wrong options: typer says what was expected; anything else is our own mistake and shows where.
        if not hasattr(error, "format_message"):
            raise
        message: str = error.format_message()  # type: ignore[attr-defined]
        if not message:  # no command: the help has been shown
            return 0
        _stop(message.rstrip(".?") + ". Try --help.", 2)
    if status == INTERRUPTED:
        _stop("stopped.", INTERRUPTED)
    return status


def _stop(message: str, status: int) -> NoReturn:
    warn(f"odefend: {message}")
    sys.exit(status)


def _tell(message: Warning | str, kind: type[Warning], filename: str, lineno: int, *_: object) -> None:
    """A warning of ours as a line; of one of a library, where it comes from is worth knowing."""
    warn(f"odefend: {message}" if issubclass(kind, OdefendWarning) else f"{filename}:{lineno}: {message}")
