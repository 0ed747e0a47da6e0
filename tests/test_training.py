"""Recipes are checked, trainings resume to the same weights, and foreign states are refused."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

import odefend
from odefend.errors import CheckpointError, InvalidInput, OutputError, UnknownName
from odefend.models import IMAGE_MODELS, MODELS, cards, count_parameters, image_cards, odenet
from odefend.rng import stream
from odefend.training import Recipe, read_recipe, recipe_names, scales_of, train, try_out
from odefend.training.augment import DRAWS, augment
from odefend.training.measure import as_judged, loss_of
from odefend.training.recipe import Augmentation, Cosine, Plateau, Steps
from odefend.training.schedules import LearningRate, make_optimizer
from odefend.version import code_digest

TINY = {"options": {"in_channels": 1, "width": 4, "classes": 10}, "epochs": 3, "batch_size": 256}


class StopError(Exception):
    pass


class StopAfter:
    """Stops a training at a number of steps; remembers where it began and what it was told last."""

    def __init__(self, steps):
        self.steps, self.first, self.note = steps, None, ""

    def stage(self, name, total):
        if name.startswith("measure"):
            self.steps = 10**9

    def advance(self, done, note=""):
        self.first = done if self.first is None else self.first
        self.note = note or self.note
        if done >= self.steps:
            raise StopError


STEPS = 5  # of an epoch of digits with TINY


@pytest.mark.parametrize("name", ["digits-oon", "digits-res"])
def test_a_stopped_training_ends_with_the_same_weights(name, tmp_path, monkeypatch):
    recipe = read_recipe(name, overrides=TINY | {"keep": "best-loss", "augmentation": {"crop": 1}})
    whole = train(recipe, tmp_path / "whole")
    monkeypatch.setattr("odefend.training.state.SAVE_EVERY", 0.0)
    for stop in (2, STEPS, 2 * STEPS + 3):  # within an epoch, at its end, within the last
        with pytest.raises(StopError):
            train(recipe, tmp_path / "cut", StopAfter(stop))
    heard = StopAfter(10**9)
    cut = train(recipe, tmp_path / "cut", heard)
    assert heard.first == 2 * STEPS + 3, "the last call starts where the third was stopped"
    assert whole.read_bytes() == cut.read_bytes()
    assert not (tmp_path / "cut" / f"{name}.state").exists()
    one, other = (odefend.load(path).card for path in (whole, cut))
    curve = [epoch.model_dump(exclude={"seconds"}) for epoch in one.history]
    assert curve == [epoch.model_dump(exclude={"seconds"}) for epoch in other.history] and len(curve) == 3
    assert one.test_accuracy == other.test_accuracy and "validation" in heard.note


def test_two_runs_do_not_train_the_same_in_one_folder(tmp_path):
    recipe = read_recipe("digits-res", overrides=TINY | {"epochs": 1})

    class Another(StopAfter):
        def advance(self, done, note=""):
            with pytest.raises(OutputError, match="another run is training digits-res here"):
                train(recipe, tmp_path)
            super().advance(done, note)

    with pytest.raises(StopError):
        train(recipe, tmp_path, Another(1))
    assert train(recipe, tmp_path).exists(), "the lock is freed, however a run ends"


def test_training_is_a_function_of_its_seed_not_of_global_state(tmp_path):
    recipe = read_recipe("digits-res", overrides=TINY | {"epochs": 1})
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = load_file(train(recipe, tmp_path / "1"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    same = load_file(train(recipe, tmp_path / "2"))
    other = load_file(train(recipe.model_copy(update={"seed": 1}), tmp_path / "3"))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    recipe = read_recipe("digits-res", overrides=TINY | {"epochs": 60})
    command = (
        "import torch; torch.set_num_threads(1)\nfrom pathlib import Path\nfrom odefend.training import *\n"
        f"train(Recipe(**{recipe.model_dump()!r}), Path({str(tmp_path / 'killed')!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", command])
    state = tmp_path / "killed" / "digits-res.state"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed before it was done"
    done, heard = torch.load(state, weights_only=True)["state"]["epoch"] * STEPS, StopAfter(10**9)
    assert done >= STEPS
    killed = train(recipe, tmp_path / "killed", heard)
    assert heard.first == done
    assert killed.read_bytes() == train(recipe, tmp_path / "whole").read_bytes()


def test_recipes_in_mixed_precision_train(tmp_path):
    """Fabric hands the net images in bfloat16, which users' are refused in."""
    recipe = read_recipe("digits-oon", overrides=TINY | {"epochs": 1, "precision": "bf16-mixed"})
    net = odefend.load(train(recipe, tmp_path))
    assert {weight.dtype for weight in net.parameters()} == {torch.float32}
    with pytest.raises(InvalidInput, match="bfloat16"):
        net.predict(torch.rand(2, 1, 8, 8).bfloat16())


def test_double_precision_resumes_and_the_recipes_tolerance_is_trained_at(tmp_path, monkeypatch):
    recipe, seen = (
        read_recipe("digits-oon", overrides=TINY | {"epochs": 2, "precision": "64-true", "tolerance": 0.5}),
        set(),
    )
    real = odenet.solve
    monkeypatch.setattr(odenet, "solve", lambda *args, **how: seen.add(how["tolerance"]) or real(*args, **how))
    with pytest.raises(StopError):
        train(recipe, tmp_path, StopAfter(STEPS + 1))
    assert seen == {0.5}
    assert odefend.load(train(recipe, tmp_path)).card.tolerance == 0.5


def test_a_state_of_another_recipe_or_no_state_at_all_is_refused(tmp_path):
    recipe = read_recipe("digits-res", overrides=TINY)
    with pytest.raises(StopError):
        train(recipe, tmp_path, StopAfter(STEPS + 1))
    with pytest.raises(CheckpointError, match="other settings"):
        train(recipe.model_copy(update={"learning_rate": 1e-3}), tmp_path)
    (tmp_path / "digits-res.state").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="not a training state"):
        train(recipe, tmp_path)


def test_what_is_trained_can_be_loaded_and_says_how_good_it_is(tmp_path):
    weights = train(read_recipe("digits-oon", overrides=TINY | {"epochs": 1}), tmp_path)
    net, test = odefend.load(weights), odefend.digits("test")
    assert net.card.test_accuracy.successes == int(net.predict(test.images).correct(test.labels).sum())
    assert set(net.card.mean_nfe) == {"1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1", "1", "10"}
    assert json.loads(weights.with_suffix(".json").read_text())["recipe"]["epochs"] == 1


def test_wrong_recipes_are_refused(tmp_path):
    with pytest.raises(UnknownName, match="Did you mean 'digits-oon'"):
        read_recipe("digit-oon")
    with pytest.raises(UnknownName, match=r"unknown recipe key 'epoch'\. Did you mean 'epochs'"):
        read_recipe("digits-oon", overrides={"epoch": 3})
    with pytest.raises(InvalidInput, match="epochs"):
        read_recipe("digits-oon", overrides={"epochs": 0})
    with pytest.raises(UnknownName, match="Did you mean 'oon'"):
        read_recipe("digits-oon", overrides={"model": "oom"})
    with pytest.raises(UnknownName, match="Did you mean 'width'"):
        read_recipe("digits-oon", overrides={"options": {"widht": 4}})
    with pytest.raises(InvalidInput, match="name"):
        read_recipe("digits-oon", overrides={"name": "../mine"})
    with pytest.raises(UnknownName, match="unknown data set"):
        read_recipe("digits-oon", overrides={"data": "cifar"})
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


@pytest.mark.parametrize("name", ["mnist-oon", "mnist-mix", "mnist-res", "cifar10-oon", "cifar10-mix", "cifar10-res"])
def test_the_published_settings_of_carrara(name):
    recipe, colour = read_recipe(name, "paper"), name.startswith("cifar10")
    assert recipe.options["width"] == (256 if colour else 64) and recipe.data == name.split("-")[0]
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer) == (250 if colour else 25, 128, "sgd")
    assert (recipe.learning_rate, recipe.weight_decay, recipe.gradient_clip) == (0.1, 1e-4, 0)
    assert recipe.schedule == Plateau(name="plateau", factor=0.1, patience=15 if colour else 5)
    assert recipe.keep == "best-accuracy" and recipe.precision == "32-true" and recipe.tolerance == 1e-3
    jitter = Augmentation(crop=4, flip=True, hue=0.05, saturation=0.05)
    assert recipe.augmentation == (jitter if colour else Augmentation())
    assert recipe.solver == ({} if name.endswith("res") else {"gradient": "adjoint", "coupling": "batch"})
    mean = [[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]]
    assert recipe.options.get("normalization") == (mean if colour else None)


def test_the_published_settings_of_the_others():
    recipe = read_recipe("forensic", "paper", {"tampering": "jpeg-60-444"})
    assert recipe.name == "forensic-jpeg-60-444-paper" and recipe.data_options == {"tampering": "jpeg-60-444"}
    assert (recipe.options, recipe.epochs, recipe.batch_size) == ({"width": 256}, 50, 16)
    assert (recipe.optimizer, recipe.learning_rate, recipe.gradient_clip) == ("adam", 1e-3, 0)
    assert recipe.schedule == Cosine(name="cosine", epochs=10, minimum=1e-7)
    assert (recipe.loss, recipe.keep) == ("binary", "best-loss")
    for size, width in (("small", 16), ("large", 128)):
        for ends in ([10.0, 10.0], [10.0, 100.0], [100.0, 100.0]):
            lowest, highest = (f"{end:g}" for end in ends)
            told = lowest if lowest == highest else f"{lowest}-{highest}"
            recipe = read_recipe(f"mnist-end-time-{size}-{told}", "paper")
            assert recipe.options == {"width": width, "ends": ends}
            assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (100, 32, 1e-3)
            assert recipe.schedule == Steps(name="steps", factor=0.5, at=(50, 100)) and recipe.optimizer == "adam"
    recipe = read_recipe("cifar10-resnet14", "paper")
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer, recipe.learning_rate) == (200, 128, "adam", 1e-3)
    assert recipe.augmentation == Augmentation(crop=4, flip=True) and recipe.schedule.name == "constant"


@pytest.mark.parametrize(
    ("optimizer", "plain"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_training_is_the_textbook_loop(optimizer, plain, tmp_path):
    """By hand: augmentation, loss, clipped gradient, weight decay, one-cycle."""
    recipe = Recipe(
        name="x",
        model="oon-matched",
        options={"width": 4},
        data="digits",
        images=40,
        epochs=2,
        batch_size=16,
        optimizer=optimizer,
        learning_rate=0.05,
        weight_decay=0.1,
        gradient_clip=0.1,
        augmentation=Augmentation(crop=1),
    )
    found = load_file(train(recipe, tmp_path))
    data = odefend.digits("train")[:40]

    def draw(purpose, index=0):
        return stream(recipe.seed, "x", purpose, index)

    with torch.random.fork_rng():
        torch.manual_seed(int(draw("weights").integers(2**62)))
        net = MODELS["oon-matched"](width=4).train()
        momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
        steps = plain(net.parameters(), lr=0.05, weight_decay=0.1, **momentum)
        rate = torch.optim.lr_scheduler.OneCycleLR(steps, 0.05, total_steps=6)
        for step in range(6):
            rows = torch.from_numpy(draw("order", step // 3).permutation(40)).split(16)[step % 3]
            images = augment(
                data.images[rows], recipe.augmentation, draw("augmentation", step).random((len(rows), DRAWS))
            )
            torch.manual_seed(int(draw("dropout", step).integers(2**62)))
            steps.zero_grad()
            F.cross_entropy(net(images), data.labels[rows]).backward()
            before = torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            assert before > 0.1, "otherwise clipping is not tested"
            steps.step()
            rate.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_a_finished_training_is_not_repeated_and_not_overwritten(tmp_path):
    recipe = read_recipe("digits-res", overrides=TINY)
    weights = train(recipe, tmp_path)
    before = weights.stat().st_mtime_ns
    assert train(recipe, tmp_path) == weights and weights.stat().st_mtime_ns == before
    with pytest.raises(CheckpointError, match="trained with other settings"):
        train(recipe.model_copy(update={"epochs": 1}), tmp_path)
    assert weights.stat().st_mtime_ns == before


def test_a_tolerance_of_zero_is_refused_and_not_taken_for_the_usual_one(oon):
    with pytest.raises(InvalidInput, match="positive finite"):
        as_judged(oon, read_recipe("digits-oon"), 0.0)


def test_nets_are_judged_as_they_will_be_loaded(tmp_path):
    """Published recipes train with one step size for a whole batch; cards tell of nets that solve each image alone."""
    solver = {"gradient": "adjoint", "coupling": "batch", "t1": 2.0, "method": "bosh3"}
    recipe = read_recipe("digits-oon", overrides=TINY | {"epochs": 1, "images": 60, "solver": solver})
    net, test = odefend.load(train(recipe, tmp_path)), odefend.digits("test")[:60]
    assert isinstance(net, odefend.ODENet)
    assert (net.settings.coupling, net.settings.t1, net.settings.method) == ("sample", 2.0, "bosh3")
    said = net.predict(test.images)
    assert net.card.test_accuracy.successes == int(said.correct(test.labels).sum())
    assert net.card.mean_nfe["0.001"] == pytest.approx(said.nfe.double().mean().item(), abs=0.01)
    assert net.card.test_accuracy.settings.startswith("first 60 of the test split")
    assert net.card.versions["code"] == code_digest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"width": "x"}}, "cannot take the pictures"),
        ({"options": {"classes": 3}}, r"expected labels 0 \.\.\. 2, got 0 \.\.\. 9"),
        ({"model": "lenet5", "options": {}}, r"cannot take the pictures of digits, \(1, 8, 8\)"),
        ({"loss": "binary"}, "two classes, got 10"),
        ({"data": "folder"}, "expected the option path of the data set 'folder'"),
        ({"data_options": {"split": "test"}}, "unknown option of the data set"),
        ({"solver": {"tolerance": 1.0}}, "unknown solver setting"),
        ({"solver": {"gradient": "exakt"}}, "Did you mean 'exact'"),
        ({"schedule": {"name": "steps", "factor": 0.5, "at": [-1]}}, "schedule"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_settings_that_do_not_fit_together_are_told_before_any_work(changes, message, tmp_path):
    with pytest.raises((InvalidInput, UnknownName), match=message):
        train(read_recipe("digits-oon", overrides=changes), tmp_path)
    assert not list(tmp_path.glob("*.s*"))


def test_every_recipe_can_be_read_and_fits_its_net_and_data():
    for name in recipe_names():
        for scale in scales_of(name):
            recipe = read_recipe(name, scale)
            assert recipe.scale == scale and recipe.name == (name if scale == "desk" else f"{name}-{scale}")
            if scale == "desk" or recipe.model != "glow":  # of the published size it takes seconds to build
                {**MODELS, **IMAGE_MODELS}[recipe.model](**recipe.options)
    published = {"mnist-oon", "mnist-mix", "mnist-res", "cifar10-oon", "cifar10-mix", "cifar10-res", "forensic"}
    assert published | {"mnist-lenet5", "mnist-end-time-small-10", "cifar10-resnet14"} <= set(recipe_names())


def test_names_tell_scale_and_seed():
    assert read_recipe("mnist-oon", "paper", {"seed": 7}).name == "mnist-oon-paper-seed7"
    assert read_recipe("mnist-oon", overrides={"seed": 23}).name == "mnist-oon", "the recipe's own seed"
    assert read_recipe("mnist-oon", overrides={"seed": 7, "name": "mine"}).name == "mine"
    with pytest.raises(InvalidInput, match=r"expected a table \[paper\]"):
        read_recipe("digits-oon", "paper")
    with pytest.raises(UnknownName, match="Did you mean 'paper'"):
        read_recipe("mnist-oon", "papre")


@pytest.mark.parametrize("card", [*cards().values(), *image_cards().values()], ids=lambda card: card.name)
def test_the_recipe_on_a_card_is_one_that_trains(card):
    recipe = Recipe(**card.recipe)
    assert recipe.model == card.model and recipe.seed == card.seed and recipe.epochs == card.epochs
    assert count_parameters({**MODELS, **IMAGE_MODELS}[card.model](**card.options)) == card.parameters


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "constant"}, [0.1] * 4),
        ({"name": "steps", "factor": 0.5, "at": [1, 3]}, [0.1, 0.05, 0.05, 0.025]),
        ({"name": "cosine", "epochs": 2}, [0.1, 0.05, 0.0, 0.05]),
        # Accuracies 0.5, 0.4, 0.4, 0.4, or losses that rise: the second epoch in a row without progress is one more than the
        # patience of 1.
        ({"name": "plateau", "patience": 1}, [0.1, 0.1, 0.1, 0.01]),
    ],
)
@pytest.mark.parametrize("results", [(-0.5, -0.4, -0.4, -0.4), (2.5, 2.5, 2.6, 2.6), (-3.0, -3.0, -2.9, -3.0)])
def test_schedules_are_the_published_ones(schedule, expected, results):
    """Whatever sign the validation split's results have: minus accuracies, or losses."""
    base = {"name": "x", "model": "oon", "data": "digits", "epochs": 4, "learning_rate": 0.1, "optimizer": "sgd"}
    recipe = Recipe(**base, schedule=schedule)
    optimizer = make_optimizer(torch.nn.Linear(1, 1), recipe)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    rate, seen = LearningRate(optimizer, recipe, batches=3), []
    for result in results:
        seen.append(optimizer.param_groups[0]["lr"])
        for _ in range(3):
            optimizer.step()
            rate.step()
        rate.epoch(result)
    assert seen == pytest.approx(expected, abs=1e-12)


def test_augmentation_moves_each_image_by_its_own_draw():
    images = torch.rand(6, 3, 8, 8)
    draws = np.random.default_rng(0).random((6, DRAWS))
    assert torch.equal(augment(images, Augmentation(), draws), images)
    how = Augmentation(crop=2, flip=True, hue=0.1, saturation=0.3)
    changed = augment(images, how, draws)
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 1
    torch.testing.assert_close(augment(images[[4, 1]], how, draws[[4, 1]]), changed[[4, 1]])
    # A crop is a window of the framed image, at every place in turn.
    framed, seen = F.pad(images, [2] * 4), set()
    for row, column in itertools.product(range(5), range(5)):
        at = np.full((6, DRAWS), 0.9)
        at[:, 0], at[:, 1] = (row + 0.5) / 5, (column + 0.5) / 5
        assert torch.equal(augment(images, Augmentation(crop=2), at), framed[:, :, row : row + 8, column : column + 8])
        seen.add((row, column))
    left = np.zeros((6, DRAWS))
    assert torch.equal(augment(images, Augmentation(flip=True), left), images.flip(3))
    assert torch.equal(augment(images, Augmentation(flip=True), left + 0.5), images)


def test_colour_jitter_keeps_brightness_and_greys():
    draws = np.random.default_rng(0).random((4, DRAWS))
    how = Augmentation(hue=0.5, saturation=0.2)
    grey = torch.rand(4, 1, 5, 5).expand(4, 3, 5, 5)
    torch.testing.assert_close(augment(grey, how, draws), grey, rtol=0, atol=1e-6)
    images = 0.4 + 0.2 * torch.rand(4, 3, 5, 5)  # far enough from 0 and 1 for nothing to be clipped
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    changed = augment(images, how, draws)
    torch.testing.assert_close((changed * luma).sum(1), (images * luma).sum(1), rtol=0, atol=1e-6)
    none = np.full((4, DRAWS), 0.5)
    torch.testing.assert_close(augment(images, how, none), images, rtol=0, atol=1e-6)
    # Half a circle turns each colour into its complement.
    half = none.copy()
    half[:, 3] = 1.0
    twice = augment(augment(images, how, half), how, half)
    assert not torch.allclose(augment(images, how, half), images, atol=1e-2)
    torch.testing.assert_close(twice, images, rtol=0, atol=1e-5)


def test_the_binary_loss_is_that_of_the_one_output():
    y, labels = torch.randn(5), torch.tensor([0, 1, 1, 0, 1])
    recipe = read_recipe("forensic")
    expected = F.binary_cross_entropy_with_logits(y, labels.float(), reduction="sum")
    assert loss_of(recipe, torch.stack([-y, y], 1), labels) == pytest.approx(expected.item())


@pytest.mark.parametrize(("keep", "best"), [("best-accuracy", 1), ("best-loss", 0), ("last", 2)])
def test_the_best_epoch_is_kept_where_the_recipe_asks_for_it(keep, best, tmp_path, monkeypatch):
    recipe = read_recipe("digits-res", overrides=TINY | {"keep": keep})
    found, weights = iter([(0.5, 0.1), (0.9, 0.3), (0.7, 0.2)]), []

    def validate(self):
        weights.append({name: value.clone() for name, value in self.net.state_dict().items()})
        return next(found)

    monkeypatch.setattr("odefend.training.loop.Training._validate", validate)
    kept = load_file(train(recipe, tmp_path))
    same = [all(torch.equal(kept[name], values[name]) for name in kept) for values in weights]
    assert same == [epoch == best for epoch in range(3)]


def test_a_trial_tells_the_time_of_the_whole_and_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe("digits-res", overrides=TINY)
    trial = try_out(recipe, 2)
    assert trial.steps == 15 and 0 < trial.seconds < 5 and trial.projected == pytest.approx(15 * trial.seconds)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInput, match=r"steps: expected 1 \.\.\. 4"):
        try_out(recipe, 5)


def test_two_devices_learn_what_one_does(cli, tmp_path):
    """Without dropout and batch norm, sharing a batch changes rounding only."""
    folder = tmp_path / "data"
    for i in range(40):
        path = folder / f"{i % 4}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (28, 28), dtype=np.uint8)).save(path)
    (tmp_path / "pair.toml").write_text(
        f'''name = "pair"
model = "lenet5"
data = "folder"
data_options = {{ path = "{folder}", grey = true }}
epochs = 2
batch_size = 31
learning_rate = 1e-3
augmentation = {{ crop = 2 }}
'''
    )
    command = ["train", "pair.toml", "--quiet", "--json", "--accelerator", "cpu", "--devices"]
    # By the command's own file, which Fabric starts again for the second device.
    file = Path(sys.executable).parent / "odefend"
    pair = subprocess.run(
        [file, *command, "2", "--out", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    told = {}
    for devices, done in ((1, cli(*command, 1, "--out", 1, cwd=tmp_path)), (2, pair)):
        assert done.returncode == 0, done.stderr
        told[devices] = json.loads(done.stdout)["card"]
    assert told[2]["device"] == "2 x cpu"
    one, two = (load_file(tmp_path / f"{devices}" / "pair.safetensors") for devices in (1, 2))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)
    losses = [[epoch["loss"] for epoch in told[devices]["history"]] for devices in (1, 2)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits-res", "digits-oon"])
def test_training_again_lands_within_the_cards_interval(name, tmp_path):
    began = time.monotonic()
    net = odefend.load(train(read_recipe(name), tmp_path))
    promised = odefend.load(name).card.test_accuracy
    assert promised.low <= net.card.test_accuracy.rate <= promised.high
    assert net.card.wall_seconds < 600 and time.monotonic() - began < 900
