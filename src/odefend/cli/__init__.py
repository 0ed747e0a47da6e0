"""The command line: `odefend COMMAND --help` tells about each command."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from odefend.errors import OdefendError

app = typer.Typer(
    name="odefend",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Train Neural-ODE image classifiers, attack them, judge them over solver tolerances, and report what holds.",
)

INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


@app.callback()
def _root() -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.html and the ledger.")] = Path("odefend-demo"),
    images: Annotated[int, typer.Option(min=2, max=500, help="Test images to attack.")] = 50,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Attack two packaged nets on real digits and write an honest report, in about two minutes.

    C&W and PGD against a Neural ODE and its matched ResNet, judged at tolerances from 1e-6 to 10, with the controls that
    tell an effect from noise, and a tolerance vote beside the one-pass margin. Run again with the same --out, it continues
    where it was stopped and repeats nothing that is done.
    """
    from odefend.cli.commands import run_demo

    run_demo(out, images, workers, quiet, as_json)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (digits-oon, digits-res) or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights and their card.")] = Path("runs"),
    seed: Annotated[int | None, typer.Option(help="Replaces the recipe's seed.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Replaces the recipe's number of epochs.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="32-true, 64-true or bf16-mixed; replaces the recipe's.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a net by a recipe; stopped, it goes on from its last epoch when called again.

    Writes OUT/NAME.safetensors and OUT/NAME.json, a card with the measured test accuracy and its interval. Load the result
    in Python with `odefend.load("OUT/NAME.safetensors")`.
    """
    from odefend.cli.commands import run_train

    changes = {"seed": seed, "epochs": epochs, "precision": precision}
    run_train(recipe, out, {key: value for key, value in changes.items() if value is not None}, quiet, as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `odefend demo` wrote.")],
) -> None:
    """Write a demo's report.html anew from the rows of its ledger."""
    from odefend.cli.commands import run_report

    run_report(folder)


def main() -> None:
    """Run the command line; a user's mistake gives one message and exit status 2, Ctrl-C gives 130."""
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
