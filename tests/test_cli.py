"""The command line as a user meets it: help, wrong use without a traceback, Ctrl-C without loss."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_data_files import mnist_folder

from odefend import models
from odefend.cli.progress import Plain, clock, duration
from odefend.errors import CheckpointError, InvalidInput, UnknownName
from odefend.evaluation import read_evaluation
from odefend.files import parse_toml
from odefend.models import catalogue
from odefend.training import read_recipe

ODEFEND = [sys.executable, "-c", "import torch; torch.set_num_threads(1)\nfrom odefend.cli import main; main()"]


def odefend(*arguments, **options):
    return subprocess.run([*ODEFEND, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), ("demo", "train", "evaluate", "report", "study")),
        (("demo", "--help"), ("--out", "--images", "matched", "tolerances")),
        (("train", "--help"), ("recipes", "--precision", "--seed", "--scale", "--trial", "--data-dir", "--devices")),
        (("data", "--help"), ("list", "fetch", "check")),
        (("models", "--help"), ("fetch",)),
    ],
)
def test_help_teaches(arguments, words):
    done = odefend(*arguments)
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
def test_wrong_use_is_one_message_and_no_traceback(arguments, message, tmp_path):
    done = odefend(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_unwritable_places_are_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    for command in (("demo",), ("train", "digits-res")):
        done = odefend(*command, "--out", blocked / "out")
        assert done.returncode == 2 and f"{blocked / 'out'}" in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_key_in_a_recipe_file_is_named_with_the_nearest(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\nmodel = "oon"\ndata = "digits"\nepoch = 3\n')
    done = odefend("train", recipe, "--out", tmp_path)
    assert done.returncode == 2 and "Did you mean 'epochs'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("deep", ["a = " + "[" * 9999 + "]" * 9999, ".".join("a" * 9999) + " = 1"])
def test_a_file_nested_without_end_is_refused(deep, tmp_path):
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_toml(deep)
    for read, kept in ((read_evaluation, "deep.json"), (read_evaluation, "deep.toml"), (read_recipe, "deep.toml")):
        (tmp_path / kept).write_text(deep if kept.endswith("toml") else "[" * 99999)
        with pytest.raises(InvalidInput, match=r"deep\.(toml|json): expected a TOML file with"):
            read(tmp_path / kept if read is read_evaluation else str(tmp_path / kept))


def test_train_json_and_a_checkpoint_that_loads(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'name = "mine"\nmodel = "oon-matched"\noptions = {width = 4}\ndata = "digits"\nepochs = 2\nbatch_size = 256\n'
    )
    done = odefend("train", recipe, "--out", tmp_path / "runs", "--json", "--quiet", "--seed", "7")
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
    while not list(tmp_path.glob("ledger/*/*.parquet")) and time.monotonic() < deadline:
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


def test_data_sets_are_listed_and_checked(nothing_here, tmp_path):
    listed = odefend("data", "list", env=nothing_here)
    assert listed.returncode == 0 and "not here; a download of 171 MB" in listed.stdout and "mnist" in listed.stdout
    mnist_folder(tmp_path / "sets" / "mnist")
    done = odefend("data", "check", "mnist", "--data-dir", tmp_path / "sets", "--json", env=nothing_here)
    (told,) = json.loads(done.stdout)
    assert done.returncode == 1 and "not as published: train-images" in told["verdict"]
    assert told["where"] == str(tmp_path / "sets" / "mnist") and "train 1,000" in told["splits"]
    digits = odefend("data", "check", "digits", "--json", env=nothing_here)
    assert digits.returncode == 0 and json.loads(digits.stdout)[0]["verdict"] == "as published"
    wrong = odefend("data", "check", "mnits", env=nothing_here)
    assert wrong.returncode == 2 and "Did you mean 'mnist'" in wrong.stderr and "Traceback" not in wrong.stderr


def test_trained_nets_are_listed_and_recipes_too():
    told = json.loads(odefend("models", "--json").stdout)
    assert {"digits-oon", "digits-res", "mnist-mix", "mnist-res"} <= {card["name"] for card in told}
    table = odefend("models").stdout
    assert "digits-oon" in table and "test error" in table
    listed = odefend("recipes")
    assert listed.returncode == 0 and "1,194,241" in listed.stdout and "7,921,290" in listed.stdout


def test_a_trial_tells_how_long_all_would_take(tmp_path):
    done = odefend("train", "digits-res", "--trial", "3", "--json", "--quiet", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["steps"] == 40 * 35 and told["projected_seconds"] == pytest.approx(
        told["steps"] * told["seconds_per_step"]
    )
    assert list(tmp_path.iterdir()) == []
    assert "All 1,400 steps (40 epochs): about" in odefend("train", "digits-res", "--trial", "3").stdout


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
