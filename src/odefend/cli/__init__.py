"""The command line: `odefend COMMAND --help` tells about each command."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from odefend.errors import DataError, OdefendError

app = typer.Typer(
    name="odefend",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Train Neural-ODE image classifiers, attack them, judge them over solver tolerances, and report what holds.",
)

INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C

data = typer.Typer(no_args_is_help=True, help="Data sets: list, fetch, check.")
models = typer.Typer(help="Trained nets: list them, or fetch weights.")
app.add_typer(data, name="data")
ledger = typer.Typer(no_args_is_help=True, help="The rows of evaluations: columns, query, merge, pack, verify.")
app.add_typer(models, name="models")
app.add_typer(ledger, name="ledger")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of data sets, such as FOLDER/mnist; default: $ODEFEND_DATA.")
]


def use_data(folder: Path | None) -> None:
    """Let this process and those it starts find data sets in a folder."""
    if folder is not None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. Name the one that folders of data sets, such as mnist, are in.")
        os.environ["ODEFEND_DATA"] = str(folder.absolute())


@app.callback()
def _root() -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for demo.html and the ledger.")] = Path("odefend-demo"),
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
    from odefend.cli.demo import run_demo

    run_demo(out, images, workers, quiet, as_json)


@app.command("evaluate")
def evaluate_(
    file: Annotated[
        Path, typer.Argument(help="A TOML file that says what is attacked, how, and under what it is judged.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for report and ledger; default: odefend-NAME.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="A trial on so many images of each kind, in a folder of its own.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help='Run on the Ray cluster at this address instead: "auto", "ray://HOST:PORT", or "local" for one of its own. '
            'Its nodes need the same odefend and the data; needs the extra "cluster".'
        ),
    ] = None,
    events: Annotated[
        Path | None, typer.Option(help="Also append the progress to this file, as lines of JSON.")
    ] = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Attack a net as a file says, judge what comes out under every condition, and write a report.

    Stopped in whatever way, it goes on when called again and repeats nothing that is done; `odefend report` shows what there
    is so far. Start from one of the files in `examples/`.
    """
    from odefend.cli.evaluation import run_estimate, run_evaluation
    from odefend.evaluation import read_evaluation

    use_data(data_dir)
    evaluation = read_evaluation(file)
    if limit is not None:
        sizes = {key: min(limit, getattr(evaluation, key)) for key in ("images", "clean", "calibration")}
        evaluation = read_evaluation(file, {**sizes, "name": f"{evaluation.name}-limit{limit}"})
    out = out or Path(f"odefend-{evaluation.name}")
    if dry_run:
        run_estimate(evaluation, out, workers, as_json)
        return
    run_evaluation(evaluation, out, workers, quiet, events, as_json, ray)


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="attacks or presets: see above.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the ledger; default: odefend-study-NAME.")] = None,
    images: Annotated[
        int | None, typer.Option(min=8, help="Test images; default: 200 for attacks, 16 for presets.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a study and print its tables; stopped in whatever way, it goes on when called again.

    **attacks**, on mnist-oon (two to three hours on two cores): C&W and BIM beside Foolbox with the same settings, gradients in
    bfloat16 beside float32, attacks that know that the tolerance is drawn at random, attacks that know a detector, and the
    attack on the solver's work. The costly parts take half, a quarter or an eighth of the images.

    **presets** (an hour on two cores): how short a C&W search may be on digits, MNIST and CIFAR-10.
    """
    from odefend.cli.study import run_study

    use_data(data_dir)
    run_study(name, out or Path(f"odefend-study-{name}"), images, workers, quiet, as_json)


@app.command()
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


@app.command()
def attack(
    net: Annotated[str, typer.Argument(help="Name of a trained net (see `odefend models`) or a .safetensors file.")],
    name: Annotated[str, typer.Option("--attack", help="An attack or a preset: see `odefend attacks`.")] = "fast",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the attack, as in epsilon=0.1 or norm=l2; repeatable."),
    ] = None,
    push: Annotated[
        float | None, typer.Option(min=0.01, help="Push what is found on by this factor, such as 1.1.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many images.")] = 100,
    start: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    data_set: Annotated[str | None, typer.Option("--data", help="Default: what the net was trained on.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
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
    seed: Annotated[int, typer.Option(help="Seed of the attack's random draws.")] = 0,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Attack a trained net; stopped in whatever way, it goes on when called again, and crafts nothing twice.

    Writes one row per image (OUT/crafted/*.parquet), the adversarial images (OUT/images/*.safetensors) and a figure of the
    attack's convergence, and tells what looks as if the attack had been weak.

    For example: `odefend attack mnist-oon --attack pgd --set epsilon=0.2 --set steps=40 --tolerance 1e-3`
    """
    from odefend.cli.attack import chosen_attack, default_data, run_attack
    from odefend.evaluation import Slice, View

    use_data(data_dir)
    known = chosen_attack(name, settings or [], push)
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
        View(net, tolerance, gradient),
        View(source or net, **how) if source or how else None,
        Slice(data_set or default_data(net), split, start, start + images),
        out,
        shard,
        workers,
        seed,
        quiet,
        as_json,
    )


@app.command()
def attacks(as_json: AsJson = False) -> None:
    """List the attacks, their settings, and presets with the reasons for them."""
    from odefend.cli.attack import run_attacks

    run_attacks(as_json)


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the recipes: every net of the papers, at the scales smoke, desk and paper."""
    from odefend.cli.training import run_recipes

    run_recipes(as_json)


@data.command("list")
def data_list(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the data sets, and where they are or how much a download is."""
    from odefend.cli.data import run_list

    use_data(data_dir)
    run_list(as_json)


@data.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="mnist, fashion-mnist, cifar10 or tiny-imagenet-200.")],
    quiet: Quiet = False,
) -> None:
    """Download a data set from its publisher and check it; stopped, it goes on from the bytes that had come."""
    from odefend.cli.data import run_fetch

    run_fetch(name, quiet)


@data.command("check")
def data_check(
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


@models.callback(invoke_without_command=True)
def models_list(context: typer.Context, as_json: AsJson = False) -> None:
    """List the trained nets: what they are, how well they do, and whether their weights are here."""
    if context.invoked_subcommand is None:
        from odefend.cli.zoo import run_models

        run_models(as_json)


@models.command("fetch")
def models_fetch(
    names: Annotated[list[str], typer.Argument(help="Names of trained nets, or `all`.")],
    source: Annotated[
        str | None, typer.Option(help="Folder or address that the weights lie in; default: $ODEFEND_ZOO.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Get the weights that did not come with the package, and check them against their cards."""
    from odefend.cli.zoo import run_fetch

    run_fetch(names, source, quiet)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A folder that `odefend evaluate` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
    as_json: AsJson = False,
) -> None:
    """Set two evaluations side by side, image by image: paired differences with intervals and p-values."""
    from odefend.cli.ledger import run_compare

    run_compare(first, second, as_json)


@ledger.command("columns")
def ledger_columns(as_json: AsJson = False) -> None:
    """List the columns of every table, and what they mean."""
    from odefend.cli.ledger import run_columns

    run_columns(as_json)


@ledger.command("query")
def ledger_query(
    folder: Annotated[Path, typer.Argument(help="A folder with a ledger.")],
    sql: Annotated[str, typer.Argument(help="Such as: select net, avg(l2) from crafted where success group by net")],
    as_json: AsJson = False,
) -> None:
    """Ask the rows by SQL; the answer comes as CSV."""
    from odefend.cli.ledger import run_query

    run_query(folder, sql, as_json)


@ledger.command("merge")
def ledger_merge(
    into: Annotated[Path, typer.Argument(help="The ledger that takes.")],
    folders: Annotated[list[Path], typer.Argument(help="Ledgers of other machines.")],
) -> None:
    """Take over what other ledgers have, rows, labels and images; what is there already stays."""
    from odefend.cli.ledger import run_merge

    run_merge(into, folders)


@ledger.command("pack")
def ledger_pack(
    folder: Annotated[Path, typer.Argument(help="A folder with a ledger that nothing is writing to.")],
) -> None:
    """Put many small files into few: what a large evaluation leaves is then read in a moment."""
    from odefend.cli.ledger import run_pack

    run_pack(folder)


@ledger.command("verify")
def ledger_verify(
    folder: Annotated[Path, typer.Argument(help="A folder with a ledger and its images.")],
    sample: Annotated[int, typer.Option(min=1, help="How many images.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show stored adversarial images to their nets again and compare; exit status 1 if a row is contradicted."""
    from odefend.cli.ledger import run_verify

    raise typer.Exit(run_verify(folder, sample, seed, as_json))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `odefend evaluate` or `odefend demo` wrote.")],
    name: Annotated[str | None, typer.Option(help="One evaluation of several; default: all.")] = None,
) -> None:
    """Write the report anew from the rows of the ledger, whether the evaluation is finished or not."""
    from odefend.cli.evaluation import run_report

    run_report(folder, name)


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
