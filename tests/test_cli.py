"""The command line as a user meets it: help, wrong use without a traceback, Ctrl-C without loss."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from test_data_files import mnist_folder

from odefend import models
from odefend.cli import main
from odefend.cli.attack import run_attacks
from odefend.cli.console import warn
from odefend.cli.data import run_list as list_data
from odefend.cli.detector import run_list as list_detectors
from odefend.cli.ledger import run_columns
from odefend.cli.models import run_models
from odefend.cli.output import say, show
from odefend.cli.progress import Plain, clock, duration
from odefend.cli.training import run_recipes
from odefend.errors import CheckpointError, InvalidInput, UnknownName
from odefend.experiments import read_experiment
from odefend.files import parse_toml
from odefend.models import catalogue
from odefend.report import Table
from odefend.training import read_recipe
from odefend.version import VERSION

ODEFEND = [sys.executable, "-c", "import torch; torch.set_num_threads(1)\nfrom odefend.cli import main; main()"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), ("demo", "train", "evaluate", "report", "study")),
        (("demo", "--help"), ("--out", "--images", "matched", "tolerances")),
        (("train", "--help"), ("recipes", "--precision", "--seed", "--scale", "--trial", "--data-dir", "--devices")),
        (("data", "--help"), ("list", "fetch", "check")),
        (("attack", "--help"), ("OUT/crafted/*.parquet", "OUT/images/*.safetensors")),
        (("data", "fetch", "digits"), ("comes with scikit-learn",)),
        (("data", "fetch", "forensic-pairs"), ("odefend data fetch tiny-imagenet-200",)),
        (("--version",), (f"odefend {VERSION}",)),
        (("models", "--help"), ("fetch",)),
    ],
)
def test_help_teaches(cli, arguments, words):
    done = cli(*arguments)
    assert done.returncode == 0
    assert all(word in done.stdout for word in words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "digit-oon"), "Did you mean 'digits-oon'"),
        (("train", "digits-oon", "--precision", "fp8"), "precision"),
        (("train", "digits-oon", "--epoch", "3"), "--epochs"),
        (("report", "nowhere"), "expected a folder that"),
        (("evaluate", "nowhere.toml"), "expected a TOML file"),
        (("study", "attcks"), "Did you mean 'attacks'"),
        (("demo", "--images", "1"), "--images"),
        (("dem",), "demo"),
        (("train", "digits-res", "--accelerator", "cuda:9"), "devices: Lightning Fabric cannot use"),
        (("train", "digits-res", "--strategy", "shared"), "devices: Lightning Fabric cannot use"),
        (("train", "digits-res", "--trial", "99"), "fewer than an epoch has"),
        (("train", "mnist-oon", "--data-dir", "nowhere"), "nowhere: no such folder"),
        (("data", "fetch", "mnits"), "Did you mean 'mnist'"),
        (("models", "fetch", "mnist-oom"), "unknown trained net"),
        (("attack", "digits-res", "--seed", f"{2**63}"), "--seed"),
        (("train", "digits-res", "--seed", f"{2**63}"), "seed"),
        (("ledger", "verify", ".", "--seed", "-1"), "--seed"),
    ],
)
def test_wrong_use_is_one_message_and_no_traceback(cli, arguments, message, tmp_path):
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_a_process_of_its_own_ends_as_main_does(cli):
    arguments = ("data", "chek")
    alone = subprocess.run([Path(sys.executable).parent / "odefend", *arguments], capture_output=True, text=True)
    done = cli(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    assert done.returncode == 2 and "check" in done.stderr


def test_unwritable_places_are_named(cli, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    for command in (("demo",), ("train", "digits-res")):
        done = cli(*command, "--out", blocked / "out")
        assert done.returncode == 2 and f"{blocked / 'out'}" in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_key_in_a_recipe_file_is_named_with_the_nearest(cli, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\nmodel = "oon"\ndata = "digits"\nepoch = 3\n')
    done = cli("train", recipe, "--out", tmp_path)
    assert done.returncode == 2 and "Did you mean 'epochs'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("deep", ["a = " + "[" * 9999 + "]" * 9999, ".".join("a" * 9999) + " = 1"])
def test_a_file_nested_without_end_is_refused(deep, tmp_path):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_toml(deep)
    for read, kept in ((read_experiment, "deep.json"), (read_experiment, "deep.toml"), (read_recipe, "deep.toml")):
        (tmp_path / kept).write_text(deep if kept.endswith("toml") else "[" * 99999)
        with pytest.raises(InvalidInput, match=r"deep\.(toml|json): expected a TOML file with"):
            read(tmp_path / kept if read is read_experiment else str(tmp_path / kept))


def test_train_json_and_a_checkpoint_that_loads(cli, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'name = "mine"\nmodel = "oon-matched"\noptions = {width = 4}\ndata = "digits"\nepochs = 2\nbatch_size = 256\n'
    )
    done = cli("train", recipe, "--out", tmp_path / "runs", "--json", "--quiet", "--seed", "7")
    assert done.returncode == 0 and done.stderr == ""
    told = json.loads(done.stdout)
    assert told["card"]["seed"] == 7 and Path(told["weights"]).exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_keeps_what_is_done(workers, tmp_path):
    process = subprocess.Popen(
        [*ODEFEND, "demo", "--out", str(tmp_path), "--workers", workers],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have had it ignored
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("ledger/crafted/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.2)
    shards = {path: path.read_bytes() for path in tmp_path.glob("ledger/*/*.parquet")}
    assert shards
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error and "goes on from there" in error
    assert all(path.read_bytes() == content for path, content in shards.items())
    assert not list(tmp_path.rglob("*.part"))


def test_plain_progress_is_lines(capsys):
    plain = Plain()
    plain.stage("work", 4)
    for done in range(5):
        plain.advance(done, "note")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["work: started", "work: 100 %, note"]
    assert clock(65) == "1:05"


@pytest.fixture
def nothing_here(tmp_path):
    """No data sets and no downloads on this machine."""
    return {**os.environ, "ODEFEND_DATA": str(tmp_path / "none"), "ODEFEND_CACHE": str(tmp_path / "cache")}


def test_data_sets_are_listed_and_checked(cli, nothing_here, tmp_path):
    listed = cli("data", "list", env=nothing_here)
    assert listed.returncode == 0 and "not here; a" in listed.stdout and "download of 171 MB" in listed.stdout
    mnist_folder(tmp_path / "sets" / "mnist")
    done = cli("data", "check", "mnist", "--data-dir", tmp_path / "sets", "--json", env=nothing_here)
    (told,) = json.loads(done.stdout)
    assert done.returncode == 1 and "not as published: train-images" in told["verdict"]
    assert told["where"] == str(tmp_path / "sets" / "mnist") and "train 1,000" in told["splits"]
    digits = cli("data", "check", "digits", "--json", env=nothing_here)
    assert digits.returncode == 0 and json.loads(digits.stdout)[0]["verdict"] == "as published"
    wrong = cli("data", "check", "mnits", env=nothing_here)
    assert wrong.returncode == 2 and "Did you mean 'mnist'" in wrong.stderr and "Traceback" not in wrong.stderr


def test_trained_nets_are_listed_and_recipes_too(cli):
    told = json.loads(cli("models", "--json").stdout)
    assert {"digits-oon", "digits-res", "mnist-mix", "mnist-res"} <= {card["name"] for card in told}
    table = cli("models").stdout
    assert "digits-oon" in table and "test error" in table
    listed = cli("recipes")
    assert listed.returncode == 0 and "1,194,241" in listed.stdout and "7,921,290" in listed.stdout


def test_a_trial_tells_how_long_all_would_take(cli, tmp_path):
    done = cli("train", "digits-res", "--trial", "3", "--json", "--quiet", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["steps"] == 40 * 35 and told["projected_seconds"] == pytest.approx(
        told["steps"] * told["seconds_per_step"]
    )
    assert list(tmp_path.iterdir()) == []
    assert "All 1,400 steps (40 epochs): about" in cli("train", "digits-res", "--trial", "3").stdout


def test_weights_that_did_not_come_along_are_fetched_and_checked(tmp_path, monkeypatch):
    zoo, cache = tmp_path / "zoo", tmp_path / "cache"
    zoo.mkdir()
    shutil.copy(catalogue.ZOO / "digits-res.json", zoo)
    monkeypatch.setattr(catalogue, "ZOO", zoo)
    monkeypatch.setenv("ODEFEND_CACHE", str(cache))
    monkeypatch.delenv("ODEFEND_ZOO", raising=False)
    packaged = Path(models.__file__).parent / "zoo"
    assert models.weights_of("digits-res") is None
    with pytest.raises(CheckpointError, match="odefend models fetch digits-res"):
        models.load("digits-res")
    with pytest.raises(CheckpointError, match="--source or ODEFEND_ZOO"):
        models.fetch("digits-res")
    with pytest.raises(CheckpointError, match="no such file"):
        models.fetch("digits-res", str(tmp_path))
    (tmp_path / "digits-res.safetensors").write_bytes(b"others")
    with pytest.raises(CheckpointError, match="not the weights of digits-res"):
        models.fetch("digits-res", str(tmp_path))
    assert not list(cache.rglob("*.safetensors"))
    monkeypatch.setenv("ODEFEND_ZOO", str(packaged))
    kept = models.fetch("digits-res")
    assert kept.parent == cache / "zoo" and models.load("digits-res").card.name == "digits-res"
    assert models.fetch("digits-res", "nowhere") == kept, "what is here is not fetched again"
    with pytest.raises(UnknownName, match="Did you mean 'digits-res'"):
        models.fetch("digits-ress")


def lines_of(capsys, *tables, width):
    """What is shown of tables, in so many columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        show(*tables)
    return capsys.readouterr().out.splitlines()


def test_no_word_is_cut_and_no_line_too_long_where_a_table_fits(capsys):
    rows = tuple((f"a-name-of-some-length-{at}", "three words here " * at, f"{at}") for at in range(5))
    table = Table("A title of several words", ("name", "what there is to say of it", "number"), rows, "A note. " * 30)
    for width in (44, 60, 80, 200):
        lines = lines_of(capsys, table, width=width)
        assert max(map(len, lines)) <= width
        assert all(name in {word for line in lines for word in line.split()} for name, _, _ in rows)
    below = lines_of(capsys, table, width=30)
    assert "a-name-of-some-length-4" in below and "number: 4" in " ".join(map(str.strip, below))


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (run_models, {"mnist-mix-matched-adversarial", "19,626"}),
        (run_recipes, {"mnist-mix-matched", "44,146,440;"}),
        (run_attacks, {"carlini-wagner", "search_precision=full,"}),
        (list_detectors, {"purification-change", "learning_rate=0.002,"}),
        (list_data, {"tiny-imagenet-200", "scikit-learn"}),
        (run_columns, {"search_precision", "zero_gradients"}),
    ],
)
def test_lists_fit_eighty_columns_and_cut_no_word(listed, words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    listed(False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert words <= {word for line in lines for word in line.split()}


def test_names_cannot_command_a_terminal(capsys):
    wild = "a\x1b[2Jb\u202ec\udcff"
    told = lines_of(capsys, Table(wild, ("name",), ((wild,),), wild), width=80)
    assert sum(r"a\x1b[2Jb\u202ec\udcff" in line for line in told) == 3
    say(wild)
    warn(wild)
    printed = capsys.readouterr()
    assert printed.out == printed.err == "a\\x1b[2Jb\\u202ec\\udcff\n"


@pytest.fixture
def ended(monkeypatch, capsys):
    """What main() with these arguments ends with where standard output is this: exit status, standard error."""

    def command(arguments, output):
        monkeypatch.setattr(sys, "argv", ["odefend", *arguments])
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
            patch.setattr(sys, "stdout", output)
            main()
        return stopped.value.code, capsys.readouterr().err

    return command


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["attacks"], ["attacks", "--json"], ["--help"], ["--version"]])
def test_an_output_that_takes_nothing_is_one_line(arguments, ended):
    full, told = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"), "no space is left where it goes.\n"
    assert ended(arguments, full) == (2, f"odefend: cannot write to standard output: {told}")
    assert ended(arguments, None) == (2, "odefend: standard output is closed. Send it somewhere, such as to a file.\n")
    reading, writing = os.pipe()
    os.close(reading)
    pipe = os.fdopen(writing, "w")
    assert ended(arguments, pipe) == (1, ""), "as of a program whose reader has had enough"
    for output in (full, pipe):
        with suppress(OSError):
            output.close()


def test_durations_are_told_as_people_do():
    told = [duration(seconds) for seconds in (7, 89, 90, 600, 5400, 36_000, 129_600, 864_000)]
    assert told == [
        "7 seconds",
        "89 seconds",
        "1.5 minutes",
        "10 minutes",
        "1.5 hours",
        "10 hours",
        "1.5 days",
        "10 days",
    ]
