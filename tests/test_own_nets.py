"""Anybody's nets, data, attacks, defenses and detectors: in Python by as_classifier, in files by `file.py:name`."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchdiffeq_nets as styles
from torch import nn

import odefend
from odefend.data import named_data
from odefend.engine import ModelSpec
from odefend.errors import InvalidInput, UnknownName
from odefend.experiments import limited, read_experiment, run
from odefend.ledger import Ledger
from odefend.models import Plain, Solving, open_net
from odefend.progress import Silent

EXAMPLES = Path(__file__).parent.parent / "examples"
FILE = EXAMPLES / "own_nets.py"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)


class Giving(nn.Module):
    """A linear net whose logits come out in some wrapping."""

    def __init__(self, classes=3, give=lambda logits: logits):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.give = nn.Linear(64, classes), give

    def forward(self, images):
        return self.give(self.layer(images.flatten(1)))


IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "give",
    [
        lambda logits: logits,
        lambda logits: SimpleNamespace(logits=logits),
        lambda logits: {"logits": logits, "loss": None},
        lambda logits: (logits, "features"),
    ],
    ids=["a tensor", ".logits", "a dict", "a tuple"],
)
def test_logits_are_found_in_what_a_net_gives(give):
    net = odefend.as_classifier(Giving(give=give), in_channels=1, size=8)
    assert isinstance(net, Plain) and net.classes == 3
    assert torch.equal(net(IMAGES), Giving()(IMAGES))


def test_one_logit_stands_for_two_classes():
    for give in (lambda y: y, lambda y: y[:, 0]):
        net = odefend.as_classifier(Giving(1, give), in_channels=1, size=8)
        logits, y = net(IMAGES), Giving(1)(IMAGES)[:, 0]
        assert net.classes == 2 and torch.equal(logits, torch.stack([-y, y], 1))


def test_pixels_are_brought_to_what_a_net_takes():
    net = odefend.as_classifier(Giving(), in_channels=1, size=8, mean=[0.5], std=[0.25], range=(0, 255))
    assert torch.allclose(net(IMAGES), Giving()((255 * IMAGES - 0.5) / 0.25))


def test_channels_and_size_are_found_by_trial():
    torch.manual_seed(0)
    convolutional = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    net = odefend.as_classifier(convolutional)
    assert (net.in_channels, net.classes) == (3, 5)


def test_a_net_that_takes_no_pictures_is_refused():
    with pytest.raises(InvalidInput, match=r"raised RuntimeError.*Say in_channels=\.\.\. and size"):
        odefend.as_classifier(nn.Linear(7, 3))
    with pytest.raises(InvalidInput, match="expected logits"):
        odefend.as_classifier(nn.Conv2d(1, 3, 3), size=8)
    with pytest.raises(InvalidInput, match=r"tolerance: expected none for Giving"):
        odefend.as_classifier(Giving(), in_channels=1, size=8, tolerance=1e-5)


STYLES = {
    "by name": styles.ByName,
    "by an attribute of the module": styles.ByModuleAttribute,
    "adjoint of a tuple": styles.ByAdjointOfATuple,
    "built by arguments": styles.by_arguments,
    "augmented": lambda: styles.by_arguments(augment=2),
    "adjoint block": lambda: styles.by_arguments(adjoint=True),
    "a tuple, backwards": styles.ByTupleBackwards,
    "max_num_steps": lambda: styles.by_arguments(options={"max_num_steps": 500}),
}


@pytest.mark.parametrize("style", STYLES)
def test_nets_of_public_styles_have_draws_and_votes(style):
    torch.manual_seed(0)
    net = odefend.as_classifier(STYLES[style](), in_channels=1, size=8, gradient="unrolled")
    assert isinstance(net, Solving)
    ids = list("abcd")
    drawn = odefend.RandomTolerance()(net).draw(ids, 0)
    assert drawn.predict(IMAGES).logits.shape == (4, net.classes)
    assert odefend.ToleranceVote(net, votes=3).score(IMAGES, ids).shape == (4,)


def test_a_net_in_fixed_steps_is_adapted_and_has_no_tolerance_to_draw():
    net = odefend.as_classifier(styles.Fixed("rk4", step_size=0.25), in_channels=1, size=8)
    assert isinstance(net, Solving) and net(IMAGES).shape == (4, net.classes)


def test_settings_reach_the_trial_and_are_not_dropped_for_a_classifier():
    """Rows that depend on each other are refused until they are said to share their steps."""
    torch.manual_seed(0)
    with pytest.raises(InvalidInput, match="coupling='batch'"):
        odefend.as_classifier(styles.OfNeighbours(), in_channels=1, size=8)
    assert isinstance(odefend.as_classifier(styles.OfNeighbours(), in_channels=1, size=8, coupling="batch"), Solving)
    net = odefend.as_classifier(Giving(), in_channels=1, size=8)
    assert odefend.as_classifier(net) is net
    with pytest.raises(InvalidInput, match="expected none for a Classifier"):
        odefend.as_classifier(net, mean=[0.5])


def test_a_torchdiffeq_that_is_too_old_leaves_a_plain_net_and_says_so(monkeypatch):
    def refuse():
        raise InvalidInput("torchdiffeq: expected version 0.2.4 or newer, got 0.2.3.")

    monkeypatch.setattr("odefend.models.any.install", refuse)
    with pytest.warns(UserWarning, match=r"ByName is taken as a plain net.*0\.2\.4"):
        net = odefend.as_classifier(styles.ByName(), in_channels=1, size=8)
    assert isinstance(net, Plain)


def test_a_net_of_a_file_has_its_source_in_its_identity(tmp_path):
    copy = tmp_path / "nets.py"
    copy.write_text(FILE.read_text())
    before = ModelSpec(f"{copy}:ode").record()["net_digest"]
    other = tmp_path / "other.py"
    other.write_text(FILE.read_text() + "\n# changed\n")
    assert ModelSpec(f"{other}:ode").record()["net_digest"] != before
    assert ModelSpec(f"{copy}:ode", options='{"width":4}').record()["net_digest"] != before


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("nowhere.py:net", InvalidInput, "no such file"),
        (f"{FILE}:odd", UnknownName, "Did you mean 'ode'"),
        (f"{FILE}:torch", InvalidInput, "callable"),
        (f"{FILE}:images", InvalidInput, "raised TypeError"),
        ("math:pi", InvalidInput, "raised TypeError"),
        ("no_such_package:net", InvalidInput, "cannot be imported"),
    ],
)
def test_a_name_that_means_no_net_is_refused_in_one_line(name, error, told):
    with pytest.raises(error, match=told):
        open_net(name)


def test_a_file_that_raises_is_told_in_one_line(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("1 / 0\n")
    with pytest.raises(InvalidInput, match=r"broken\.py: cannot be run: ZeroDivisionError: division by zero"):
        open_net(f"{file}:net")


def test_images_of_ones_own_have_ids_and_labels():
    some = named_data(f"{FILE}:images", "test", {"count": 5})
    assert some.ids[0] == "own_nets/test/00000" and len(some.labels) == 5
    with pytest.raises(UnknownName, match="folder"):
        named_data("no-such-folder", "test")


def test_a_worker_that_has_seen_nothing_of_a_file_runs_its_attack(tmp_path):
    """The first thing that each of two workers gets is an attack of the user's own, on a net of the zoo."""
    text = f"""
name = "own"
shard = 2
[data.test]
set = "digits"
count = 4
[models.net]
net = "digits-res"
[attacks.own]
attack = "{FILE}:HalfStep"
epsilon = 0.1
on = "net"
"""
    alone, together = (run(read_experiment(text), tmp_path / str(n), Silent(), workers=n) for n in (1, 2))
    assert together.read("crafted").height == 4 and together.read("crafted").equals(alone.read("crafted"))


def smoke():
    return limited(read_experiment(EXAMPLES / "own-nets.toml"), 6).model_copy(update={"shard": 3})


def test_the_example_runs_alike_with_one_worker_and_two(tmp_path):
    alone, together = (run(smoke(), tmp_path / str(n), Silent(), workers=n) for n in (1, 2))
    for table in ("crafted", "judged", "scored"):
        rows = alone.read(table)
        assert rows.height and rows.equals(together.read(table)), table


@pytest.mark.slow
def test_the_example_goes_on_after_a_kill(tmp_path):
    command = [
        sys.executable,
        "-c",
        "from odefend.cli import main; main()",
        "evaluate",
        "examples/own-nets.toml",
        "--quiet",
    ]
    command += ["--workers", "1", "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    crafted = tmp_path / "killed" / "ledger" / "crafted"
    while process.poll() is None and len(list(crafted.glob("*.parquet"))) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole = run(read_experiment(EXAMPLES / "own-nets.toml"), tmp_path / "whole", Silent(), workers=1)
    killed = Ledger(tmp_path / "killed" / "ledger")
    for table in ("crafted", "judged", "scored"):
        assert killed.read(table).equals(whole.read(table)), table
