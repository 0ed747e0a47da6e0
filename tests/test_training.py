"""Recipes are checked, trainings resume to the same weights, and foreign states are refused."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import odefend
from odefend.errors import CheckpointError, InvalidInput, OutputError, UnknownName
from odefend.models import odenet
from odefend.training import Recipe, read_recipe, train

TINY = {"options": {"in_channels": 1, "width": 4, "classes": 10}, "epochs": 3, "batch_size": 256}


class StopError(Exception):
    pass


class StopAfter:
    def __init__(self, epochs):
        self.epochs, self.first = epochs, None

    def stage(self, name, total):
        pass

    def advance(self, done, note=""):
        self.first = done if self.first is None else self.first
        if done >= self.epochs:
            raise StopError


@pytest.mark.parametrize("name", ["digits-oon", "digits-res"])
def test_a_stopped_training_ends_with_the_same_weights(name, tmp_path):
    recipe = read_recipe(name, TINY)
    whole = train(recipe, tmp_path / "whole")
    for epochs in (1, 2):
        with pytest.raises(StopError):
            train(recipe, tmp_path / "cut", StopAfter(epochs))
    heard = StopAfter(99)
    cut = train(recipe, tmp_path / "cut", heard)
    assert heard.first == 2, "the third call starts after the second epoch"
    assert whole.read_bytes() == cut.read_bytes()
    assert not (tmp_path / "cut" / f"{name}.state").exists()


def test_training_is_a_function_of_its_seed_not_of_global_state(tmp_path):
    recipe = read_recipe("digits-res", TINY | {"epochs": 1})
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = load_file(train(recipe, tmp_path / "1"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    same = load_file(train(recipe, tmp_path / "2"))
    other = load_file(train(recipe.model_copy(update={"seed": 1}), tmp_path / "3"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_killed_training_resumes(tmp_path):
    command = [
        sys.executable,
        "-c",
        "import torch; torch.set_num_threads(1)\nfrom pathlib import Path\nfrom odefend.training import *\n"
        f"train(read_recipe('digits-res', {TINY | {'epochs': 400}!r}), Path({str(tmp_path)!r}))",
    ]
    process = subprocess.Popen(command)
    state = tmp_path / "digits-res.state"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done, heard = torch.load(state, weights_only=True)["epoch"], StopAfter(1)
    assert done >= 1
    with pytest.raises(StopError):
        train(read_recipe("digits-res", TINY | {"epochs": 400}), tmp_path, heard)
    assert heard.first == done


def test_double_precision_resumes_and_the_recipes_tolerance_is_trained_at(tmp_path, monkeypatch):
    recipe, seen = read_recipe("digits-oon", TINY | {"epochs": 2, "precision": "64-true", "tolerance": 0.5}), set()
    real = odenet.solve
    monkeypatch.setattr(odenet, "solve", lambda *args, **how: seen.add(how["tolerance"]) or real(*args, **how))
    with pytest.raises(StopError):
        train(recipe, tmp_path, StopAfter(1))
    assert seen == {0.5}
    assert odefend.load(train(recipe, tmp_path)).card.tolerance == 0.5


def test_a_state_of_another_recipe_or_no_state_at_all_is_refused(tmp_path):
    recipe = read_recipe("digits-res", TINY)
    with pytest.raises(StopError):
        train(recipe, tmp_path, StopAfter(1))
    with pytest.raises(CheckpointError, match="other settings"):
        train(recipe.model_copy(update={"peak_learning_rate": 1e-3}), tmp_path)
    (tmp_path / "digits-res.state").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="not a training state"):
        train(recipe, tmp_path)


def test_what_is_trained_can_be_loaded_and_says_how_good_it_is(tmp_path):
    weights = train(read_recipe("digits-oon", TINY | {"epochs": 1}), tmp_path)
    net, test = odefend.load(weights), odefend.digits("test")
    assert net.card.test_accuracy.successes == int(net.predict(test.images).correct(test.labels).sum())
    assert set(net.card.mean_nfe) == {"1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1", "1", "10"}
    assert json.loads(weights.with_suffix(".json").read_text())["recipe"]["epochs"] == 1


def test_wrong_recipes_are_refused(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'digits-oon'"):
        read_recipe("digit-oon")
    with pytest.raises(UnknownName, match=r"unknown recipe key 'epoch'\. Did you mean 'epochs'"):
        read_recipe("digits-oon", {"epoch": 3})
    with pytest.raises(InvalidInput, match="epochs"):
        read_recipe("digits-oon", {"epochs": 0})
    with pytest.raises(UnknownName, match="Did you mean 'oon'"):
        read_recipe("digits-oon", {"model": "oom"})
    with pytest.raises(UnknownName, match="Did you mean 'width'"):
        read_recipe("digits-oon", {"options": {"widht": 4}})
    with pytest.raises(InvalidInput, match="name"):
        read_recipe("digits-oon", {"name": "../mine"})
    with pytest.raises(UnknownName, match="unknown data set"):
        read_recipe("digits-oon", {"data": "cifar"})
    file = tmp_path / "mine.toml"
    file.write_text("name = ")
    with pytest.raises(InvalidInput, match="expected a TOML file"):
        read_recipe(str(file))
    with pytest.raises(InvalidInput, match="expected a TOML file"):
        read_recipe(str(tmp_path / "none.toml"))


def test_an_unwritable_folder_is_refused_before_any_work(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        train(Recipe(name="x", model="oon-matched", data="digits", epochs=1), blocked / "folder")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits-res", "digits-oon"])
def test_training_again_lands_within_the_cards_interval(name, tmp_path):
    began = time.monotonic()
    net = odefend.load(train(read_recipe(name), tmp_path))
    promised = odefend.load(name).card.test_accuracy
    assert promised.low <= net.card.test_accuracy.rate <= promised.high
    assert net.card.wall_seconds < 600 and time.monotonic() - began < 900
