"""The command line as a user meets it: help, wrong use without a traceback, Ctrl-C without loss."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from odefend.cli.progress import Plain, clock

ODEFEND = [sys.executable, "-c", "import torch; torch.set_num_threads(1)\nfrom odefend.cli import main; main()"]


def odefend(*arguments, **options):
    return subprocess.run([*ODEFEND, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), ("demo", "train", "report")),
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
        (("report", "nowhere"), "Name a folder"),
        (("demo", "--images", "1"), "--images"),
        (("dem",), "demo"),
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
