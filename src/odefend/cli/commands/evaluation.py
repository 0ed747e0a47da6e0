"""Running experiments, studies and the demo, and what is made of their rows."""

from pathlib import Path
from typing import Annotated

import typer

from odefend.cli.options import AsJson, DataDir, Quiet, use_data
from odefend.errors import InvalidInput


def demo(
    out: Annotated[Path, typer.Option(help="Folder for demo.html and the ledger.")] = Path("odefend-demo"),
    images: Annotated[int, typer.Option(min=2, max=500, help="Test images to attack.")] = 50,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Attack two packaged nets on real digits and write an honest report, in about a minute.

    C&W and PGD against a Neural ODE and its matched ResNet, judged at tolerances from 1e-6 to 10, with the controls that
    tell an effect from noise, and a tolerance vote beside the one-pass margin. Run again with the same --out, it continues
    where it was stopped and repeats nothing that is done.
    """
    from odefend.cli.demo import run_demo

    run_demo(out, images, workers, quiet, as_json)


def evaluate(
    file: Annotated[
        Path | None, typer.Argument(help="A TOML file that says an experiment; start from one in examples/.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report and ledger; default: odefend-NAME.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="A trial on so many images of each kind, in a folder of its own.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="Only list every key that an experiment's file may have.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help='Run on the Ray cluster at this address instead: "auto", "ray://HOST:PORT", or "local" for one of its own. '
            'Its nodes need the same odefend, weights and data; needs the extra "cluster".'
        ),
    ] = None,
    events: Annotated[
        Path | None, typer.Option(help="Also append the progress to this file, as lines of JSON.")
    ] = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run an experiment as a file says it, and write a report.

    Any nets (of the zoo, checkpoints, or file.py:callable of your own) behind any defenses, under attacks that know them or a
    detector, with tables, figures and claims: see docs/experiments.md and examples/own-nets.toml.

    Stopped in whatever way, it goes on when called again and repeats nothing that is done; `odefend report` shows what there
    is so far. Start from one of the files in `examples/`.
    """
    from odefend.cli.experiment import run_experiment, run_keys, run_plan
    from odefend.experiments import limited, read_experiment

    if keys:
        run_keys(as_json)
        return
    if file is None:
        raise InvalidInput(
            "file: expected a TOML file, got none. Start from one in examples/; --keys lists what it may say."
        )
    if dry_run and ray is not None:
        raise InvalidInput("ray: expected none with --dry-run, which measures this machine.")
    use_data(data_dir)
    experiment = read_experiment(file)
    if limit is not None:
        experiment = limited(experiment, limit).model_copy(update={"name": f"{experiment.name}-limit{limit}"})
    if dry_run:
        run_plan(experiment, workers, as_json)
        return
    run_experiment(experiment, out or Path(f"odefend-{experiment.name}"), workers, quiet, events, as_json, ray)


def tune(
    net: Annotated[str, typer.Argument(help="A net of the zoo, or a .safetensors file with its card.")],
    defense: Annotated[
        str,
        typer.Option(help="tolerance, random-tolerance, end-time, input-noise, bit-depth, ...: see docs/defenses.md."),
    ] = "tolerance",
    max_accuracy_drop: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much clean accuracy the defense may cost, as 0.01.")
    ] = 0.01,
    epsilon: Annotated[
        str, typer.Option(help="Radius of the L-inf ball of the adaptive attacks, such as 0.1 or 8/255.")
    ] = "0.1",
    attack: Annotated[
        str, typer.Option(help="An oblivious attack, or a preset, to stand beside; it chooses nothing.")
    ] = "fast",
    images: Annotated[
        int,
        typer.Option(min=8, help="Validation and test images; half meet the oblivious attack, a quarter the adaptive."),
    ] = 200,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the choice, the report and the ledger; default: odefend-tune-NET.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Choose a defense's settings on validation images, and measure what they are worth on test images.

    Of the settings that cost no more clean accuracy than allowed, those are chosen that are most robust to adaptive attacks, which
    know the settings and follow the defense's own gradients. On test images the chosen ones stand beside the bare net and beside
    input noise that changes clean answers as much, under the same attacks. The choice is written to OUT/DEFENSE.json, with its
    evidence. Stopped in whatever way, it goes on when called again.
    """
    from odefend.cli.tuning import run_tune

    use_data(data_dir)
    folder = out or Path(f"odefend-tune-{Path(net).stem}")
    run_tune(net, defense, attack, epsilon, max_accuracy_drop, images, folder, workers, quiet, as_json)


def study(
    name: Annotated[
        str,
        typer.Argument(
            help="attacks, presets, detectors, defenses, hardened, distances, wifs2019 or icprw2020: see above."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the ledger; default: odefend-study-NAME.")] = None,
    images: Annotated[
        int | None,
        typer.Option(min=8, help="Test images; default: 200, but 16 for presets and 300 for detectors."),
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

    **detectors** (hours), every detector on digits-oon, **detectors-matched** those that need no solver on digits-res, and
    **detectors-mnist** (hours) those that look at the solver on mnist-oon: before C&W that does not know of them, scaled by s,
    and before C&W and PGD that know each.

    **defenses** (an hour) and **defenses-mnist** (hours), every defense of digits-oon and mnist-oon at settings tuned on validation
    images: before attackers who do not know of it, who know a similar net, and who know all but its draws; beside noise of the
    same dose and cost.

    **hardened** and **hardened-mnist** (an hour each): nets trained against attacks beside twins that were not, in L-inf balls
    under PGD, Square, AutoAttack and gradients of surrogates; certified accuracy by smoothing; robust accuracy with rejection,
    under attacks on net and detector together. They need the extra "attacks".

    **distances** (a quarter of an hour), how far images of MNIST are from the boundary by C&W as published and by MinimumNorm.

    **wifs2019** and **icprw2020** (an hour each), the attacks of Carrara et al. on mnist-oon and its matched ResNet, beside
    what they published: docs/mnist.md.

    **presets** (an hour on two cores): how short a C&W search may be on digits, MNIST and CIFAR-10.
    """
    from odefend.cli.study import run_study

    use_data(data_dir)
    run_study(name, out or Path(f"odefend-study-{name}"), images, workers, quiet, as_json)


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `odefend evaluate` or `odefend demo` wrote.")],
    name: Annotated[str | None, typer.Option(help="One experiment of several; default: all.")] = None,
) -> None:
    """Write the report anew from the rows of the ledger, whether the experiment is finished or not."""
    from odefend.cli.experiment import run_report

    run_report(folder, name)


def compare(
    first: Annotated[Path, typer.Argument(help="A folder that `odefend evaluate` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
    as_json: AsJson = False,
) -> None:
    """Set two experiments side by side, image by image: paired differences with intervals and p-values."""
    from odefend.cli.compare import run_compare

    run_compare(first, second, as_json)
