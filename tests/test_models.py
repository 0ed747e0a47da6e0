"""The papers' nets, views of them, and checkpoints that are never unpickled."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from limits import most_memory
from toys import Linear, pictures, small_ode_net

import odefend
from odefend.errors import CheckpointError, InvalidInput, UnknownName
from odefend.intervals import rate
from odefend.models import MODELS, count_parameters, save
from odefend.models.endtime import RandomPool, end_time
from odefend.models.layers import ODEField, ResBlock, TimeConv
from odefend.solver import GRADIENTS, Status

PUBLISHED = {
    ("res", 1, 64): 601_482,
    ("mix", 1, 64): 232_970,
    ("oon", 1, 64): 77_258,
    ("res", 3, 256): 7_921_290,
    ("mix", 3, 256): 2_023_562,
    ("oon", 3, 256): 1_201_930,
}


@pytest.mark.parametrize(("name", "channels", "width"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(name, channels, width):
    assert count_parameters(MODELS[name](in_channels=channels, width=width)) == PUBLISHED[name, channels, width]


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("forensic", {}, 1_194_241),
        ("end-time", {"width": 16}, 17_418),
        ("end-time", {"width": 128}, 655_370),
        ("resnet14", {}, 182_378),
        ("lenet5", {}, 61_706),
        ("oon", {"in_channels": 3, "width": 256, "normalization": ([0.5] * 3, [0.2] * 3)}, 1_201_930),
        # The ODE nets without their time channels: 2 convolutions with 9 weights for each of 64 channels.
        ("forensic-matched", {}, 1_194_241 - 2 * 9 * 256),
        ("end-time-matched", {}, 17_418),
        ("oon-matched", {}, 77_258 - 2 * 9 * 64),
        ("mix-matched", {}, 232_970 - 2 * 9 * 64),
    ],
)
def test_parameter_counts_of_the_other_nets(name, options, count):
    assert count_parameters(MODELS[name](**options)) == count


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("forensic", (3, 64, 64)),
        ("end-time", (1, 28, 28)),
        ("forensic-matched", (3, 64, 64)),
        ("end-time-matched", (1, 28, 28)),
        ("lenet5", (1, 28, 28)),
        ("resnet14", (3, 32, 32)),
        ("res", (1, 28, 28)),
        ("oon-matched", (1, 28, 28)),
        ("mix-matched", (3, 32, 32)),
    ],
)
def test_an_answer_does_not_depend_on_the_batch(name, shape):
    torch.manual_seed(0)
    options = {"width": 8} if name.startswith(("forensic", "end-time")) else {"in_channels": shape[0]}
    net, images = MODELS[name](**options).double().eval(), torch.rand(3, *shape, dtype=torch.float64)
    together = net.predict(images)
    assert together.logits.shape == (3, net.classes)
    for i in range(3):
        alone = net.predict(images[i : i + 1])
        torch.testing.assert_close(alone.logits[0], together.logits[i], rtol=1e-9, atol=1e-9)
        assert alone.nfe[0] == together.nfe[i]


def test_the_forensic_net_computes_what_its_authors_do():
    """By hand, with the time concatenated as the last channel, in fixed Euler steps."""
    torch.manual_seed(0)
    net, images = MODELS["forensic"](width=8).double().eval(), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    assert (
        isinstance(net, odefend.ODENet)
        and isinstance(net.field, ODEField)
        and isinstance(net.head, torch.nn.Sequential)
    )
    field, head = net.field, net.head
    state = net.stem(images)
    assert state.shape == (2, 8, 8, 8)
    for step in range(4):
        clock, x = torch.full((2, 1, 8, 8), step / 4, dtype=torch.float64), state
        for norm, conv in ((field.norm1, field.conv1), (field.norm2, field.conv2)):
            both = torch.cat([F.gelu(norm(x)), clock], 1)
            x = F.conv2d(both, conv.weight, conv.bias, padding=1)
        state = state + field.norm3(x) / 4
    y = head[5](F.gelu(head[0](state)).mean((2, 3)))
    found = net.at(method="euler", step=0.25)(images)
    torch.testing.assert_close(found, torch.cat([-y, y], 1), rtol=1e-10, atol=1e-10)
    assert head[3].p == 0.2


def test_a_residual_block_shortcuts_the_activated_input():
    torch.manual_seed(0)
    for block, resizes in ((ResBlock(4, 8, stride=2), True), (ResBlock(4, 4), False)):
        x = torch.randn(2, 4, 6, 6)
        active = F.relu(block.norm1(x))
        inner = block.conv2(F.relu(block.norm2(block.conv1(active))))
        assert (block.shortcut is not None) == resizes
        torch.testing.assert_close(block(x), inner + (block.shortcut(active) if block.shortcut else x))


def test_random_pooling_is_random_in_training_and_a_function_of_the_image_after():
    torch.manual_seed(0)
    pool, x, images = RandomPool(), torch.rand(2, 3, 28, 28), torch.rand(2, 1, 28, 28)
    assert pool(x, images).shape == (2, 3, 7, 7) and not torch.equal(pool(x, images), pool(x, images))
    pool.eval()
    first = pool(x, images)
    assert torch.equal(first, pool(x, images)) and not torch.equal(first, pool(x, images.flip(0)))
    assert torch.equal(first[1:], pool(x[1:], images[1:]))


def test_one_output_stands_behind_two_logits():
    torch.manual_seed(0)
    net = MODELS["forensic"](width=8).eval()
    logits = net(torch.rand(5, 3, 16, 16))
    assert torch.equal(logits[:, 0], -logits[:, 1])


def test_normalization_belongs_to_the_net_and_not_to_its_weights():
    torch.manual_seed(0)
    mean, std = [0.1, 0.2, 0.3], [0.5, 1.0, 2.0]
    net = MODELS["oon"](in_channels=3, width=8, normalization=(mean, std)).eval()
    plain = MODELS["oon"](in_channels=3, width=8).eval()
    plain.load_state_dict({name.replace("stem.1", "stem"): value for name, value in net.state_dict().items()})
    images = torch.rand(4, 3, 16, 16)
    scaled = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(net(images), plain.classify(scaled).logits)
    with pytest.raises(InvalidInput, match="normalization: expected"):
        MODELS["mix"](in_channels=1, width=8, normalization=(mean, std))


def test_the_time_channel_may_come_last():
    torch.manual_seed(0)
    conv, x, t = TimeConv(5, time_first=False).double(), torch.randn(4, 5, 6, 6).double(), torch.rand(4).double()
    expected = F.conv2d(torch.cat([x, t.view(-1, 1, 1, 1).expand(4, 1, 6, 6)], 1), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(t, x), expected, rtol=1e-12, atol=1e-12)


def test_the_end_time_is_a_setting_of_a_view_and_drawn_in_training():
    torch.manual_seed(0)
    net, images = end_time(width=8, ends=(1.0, 4.0)).eval(), torch.rand(2, 1, 28, 28)
    assert torch.equal(net(images), net.at(t1=4.0)(images)) and not torch.equal(net(images), net.at(t1=1.0)(images))
    path = net.at(1e-6).trajectory(images, times=[1.0, 4.0]).path[:, 0]
    torch.testing.assert_close(path, net.at(1e-6, t1=1.0).trajectory(images).y, rtol=1e-4, atol=1e-4)
    ends, classify = [], odefend.ODENet.classify
    net.train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(odefend.ODENet, "classify", lambda self, x: ends.append(self.settings.t1) or classify(self, x))
        for _ in range(8):
            net(images)
    assert len(set(ends)) == 8 and all(1 <= end <= 4 for end in ends) and net.settings.t1 == 4.0
    with pytest.raises(InvalidInput, match="ends"):
        MODELS["end-time"](ends=(2.0, 1.0))
    with pytest.raises(InvalidInput, match="t1"):
        net.at(t1=0.0)


def test_each_image_may_have_its_own_end_time():
    net, images = small_ode_net().at(1e-5), pictures(6)
    ends = torch.linspace(0.5, 3.0, 6, dtype=torch.float64)
    said, effort = net.at(t1=ends).predict(images), net.at(t1=ends).effort(images)
    for row, end in enumerate(ends.tolist()):
        alone = net.at(t1=end)
        torch.testing.assert_close(said.logits[row], alone(images)[row], rtol=1e-12, atol=1e-12)
        assert said.nfe[row] == alone.predict(images).nfe[row]
        torch.testing.assert_close(effort[row], alone.effort(images)[row])
    some = torch.tensor([4, 1])
    part = net.at(t1=ends).rows(some).predict(images[some])
    torch.testing.assert_close(part.logits, said.logits[some], rtol=1e-12, atol=1e-12)
    for wrong in (-1.0, float("nan"), torch.tensor([1.0, 0.0])):
        with pytest.raises(InvalidInput, match="t1: expected a positive finite end time"):
            net.at(t1=wrong)


@pytest.mark.parametrize(("name", "size", "state"), [("oon", 28, 14), ("oon", 32, 16), ("mix", 28, 7), ("mix", 32, 8)])
def test_the_state_has_the_published_size(name, size, state):
    net = MODELS[name](in_channels=1, width=32).eval()
    assert isinstance(net, odefend.ODENet)
    assert net.stem(torch.rand(1, 1, size, size)).shape == (1, 32, state, state)
    assert net(torch.rand(1, 1, size, size)).shape == (1, 10)


def test_time_convolution_equals_the_concatenation():
    torch.manual_seed(0)
    conv, x, t = TimeConv(5).double(), torch.randn(4, 5, 6, 6).double(), torch.rand(4).double()
    clock = t.view(-1, 1, 1, 1).expand(4, 1, 6, 6)
    expected = F.conv2d(torch.cat([clock, x], 1), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(t, x), expected, rtol=1e-12, atol=1e-12)


def test_a_view_shares_weights_and_leaks_nowhere():
    net, images = small_ode_net(), pictures(6)
    loose = net.at(1.0)
    assert net.settings.tolerance == 1e-3 and loose.settings.tolerance == 1.0
    assert loose.field is net.field
    assert (loose.predict(images).nfe < net.predict(images).nfe).any()
    assert loose.at(end="clip").settings.tolerance == 1.0


def test_one_tolerance_per_image_follows_rows():
    net, images = small_ode_net(), pictures(4)
    each = torch.tensor([1e-6, 1e-1, 1e-4, 1e-2], dtype=torch.float64)
    together = net.at(each).predict(images)
    index = torch.tensor([2, 0])
    part = net.at(each).rows(index).predict(images[index])
    torch.testing.assert_close(part.logits, together.logits[index], rtol=1e-10, atol=1e-12)
    for i, tolerance in enumerate(each.tolist()):
        assert net.at(tolerance).predict(images[i : i + 1]).nfe[0] == together.nfe[i]
    with pytest.raises(InvalidInput, match="one per sample"):
        net.at(each).predict(images[:3])


def test_an_unanswered_image_is_neither_right_nor_fooled():
    net = small_ode_net().at(1e-6, max_steps=1)
    prediction = net.predict(pictures(3))
    assert not prediction.answered.any()
    for label in range(3):
        labels = torch.full((3,), label)
        assert not prediction.correct(labels).any() and not prediction.fooled(labels).any()


def test_logits_that_are_no_numbers_are_no_answer():
    net = Linear(torch.full((2, 64), torch.nan, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    prediction = net.predict(pictures(3))
    for label in (0, 1):
        labels = torch.full((3,), label)
        assert not prediction.correct(labels).any() and not prediction.fooled(labels).any()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 8, 8), r"expected shape \(N, 1, height, width\)"),
        (torch.rand(8, 8), "batch axis"),
        (torch.rand(2, 1, 8, 8) * 255, "divided by 255"),
        (torch.rand(2, 1, 8, 8) - 0.5, r"values in \[0, 1\]"),
        (torch.full((2, 1, 8, 8), torch.nan), r"values in \[0, 1\]"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "floating-point"),
    ],
)
def test_wrong_images_are_refused(images, message, oon):
    with pytest.raises(InvalidInput, match=message):
        oon.predict(images)


def test_wrong_width_and_names_are_refused():
    with pytest.raises(InvalidInput, match="multiple of 32"):
        MODELS["oon"](width=40)
    with pytest.raises(UnknownName, match="Did you mean 'digits-oon'"):
        odefend.load("digit-oon")
    with pytest.raises(InvalidInput, match="tolerance"):
        small_ode_net().at(0.0)


@pytest.mark.parametrize("name", ["digits-oon", "digits-res"])
def test_the_packaged_nets_are_what_their_cards_say(name, test_digits):
    net = odefend.load(name)
    right = int(net.predict(test_digits.images).correct(test_digits.labels).sum())
    measured = net.card.test_accuracy
    assert (measured.successes, measured.images) == (right, len(test_digits))
    interval = rate(right, len(test_digits))
    assert (measured.low, measured.high) == pytest.approx((interval.low, interval.high))
    assert measured.rate >= 0.97
    assert net.card.data_digest == odefend.digits("train").digest
    assert not net.training


def test_save_and_load_give_equal_logits(tmp_path, oon, test_digits):
    path = save(oon, oon.card, tmp_path / "copy")
    again = odefend.load(path)
    assert torch.equal(again(test_digits[:20].images), oon(test_digits[:20].images))


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path, oon):
    path = save(oon, oon.card, tmp_path / "net")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        odefend.load(path)
    card = tmp_path / "net.json"
    for text, message in (
        ("{}", "not a card"),
        ("no json", "not a card"),
        (json.dumps({"format": 1, "name": 3}), "not a card"),
    ):
        card.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            odefend.load(path)
    card.unlink()
    with pytest.raises(CheckpointError, match="no such card"):
        odefend.load(path)
    (tmp_path / "evil.json").write_text(oon.card.model_dump_json())
    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="SHA-256"):
        odefend.load(tmp_path / "evil.safetensors")


def test_a_card_of_another_model_is_refused(tmp_path, oon):
    path = save(oon, oon.card.model_copy(update={"model": "oon-matched"}), tmp_path / "net")
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        odefend.load(path)
    path = save(oon, oon.card.model_copy(update={"model": "resnet50"}), tmp_path / "net")
    with pytest.raises(UnknownName, match="unknown model"):
        odefend.load(path)


@pytest.mark.parametrize(
    ("solver", "told"),
    [
        ({"methud": "rk4"}, "methud"),
        ({"method": "rk5"}, "unknown method 'rk5'"),
        ({"t1": "one"}, "one"),
        ({"t1": -1}, "t1"),
    ],
)
def test_a_card_that_names_another_solver_is_refused(solver, told, tmp_path, oon):
    path = save(oon, oon.card.model_copy(update={"solver": solver}), tmp_path / "net")
    with pytest.raises(CheckpointError, match=f"its card says that it is solved with .*{told}"):
        odefend.load(path)


@pytest.mark.parametrize(
    "options",
    [
        {"width": 8192},
        {"width": 10**12},
        {"width": -1},
        {"width": "64"},
        {"normalization": 3},
        {"in_channels": 0},
        {"wide": 1},
    ],
    ids=str,
)
def test_a_card_that_says_more_than_its_file_holds_is_refused_before_memory_is_taken(options, oon, tmp_path):
    path, before = save(oon, oon.card.model_copy(update={"options": options}), tmp_path / "net"), most_memory()
    with pytest.raises(CheckpointError, match="does not hold the weights") as caught:
        odefend.load(path)
    assert "\n" not in str(caught.value) and most_memory() - before < 100


@pytest.mark.parametrize("options", [{"steps": 10**9}, {"levels": 20, "size": 2**20}, {"in_channels": 10**6}], ids=str)
def test_a_card_of_a_model_of_images_likewise(options, tmp_path):
    model = odefend.load_image_model("digits-glow")
    card = model.card.model_copy(update={"options": model.card.options | options})
    path, before = save(model, card, tmp_path / "net"), most_memory()
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        odefend.load_image_model(path)
    assert most_memory() - before < 100


def test_a_card_of_any_length_is_no_card(oon, tmp_path):
    path = save(oon, oon.card, tmp_path / "net")
    with path.with_suffix(".json").open("wb") as file:
        file.truncate(1 << 25)
    with pytest.raises(CheckpointError, match=r"not a card of odefend .*larger than 16,777,216 bytes"):
        odefend.load(path)


def test_every_solver_setting_reaches_the_solver():
    """Each changes what is computed, and a view's settings are its own."""
    net, images = small_ode_net(), pictures(6)
    plain = net.predict(images)
    assert net.at(1e-6).predict(images).nfe.sum() > plain.nfe.sum()
    assert net.at(method="tsit5").predict(images).nfe.tolist() != plain.nfe.tolist()
    assert (net.at(method="rk4", step=0.25).predict(images).nfe == 16).all()
    assert net.at(method="rk4", step=0.25).at(method="dopri5").settings.step is None
    assert net.at(coupling="batch").predict(images).nfe.unique().numel() == 1 < plain.nfe.unique().numel()
    assert not torch.equal(net.at(end="clip").predict(images).logits, plain.logits)
    assert (net.at(max_steps=1).predict(images).status == Status.MAX_STEPS).any()
    assert net.settings.coupling == "sample"

    def gradient(**how):
        start = images.clone().requires_grad_()
        return torch.autograd.grad(net.at(**how)(start).square().sum(), start)[0]

    modes = {mode: gradient(gradient=mode, tolerance=1e-1) for mode in GRADIENTS}
    assert torch.equal(modes["checkpoint"], modes["unrolled"])
    for mode in ("exact", "torchdiffeq", "adjoint"):
        assert not torch.equal(modes[mode], modes["unrolled"])
    loose, tight = (gradient(gradient="adjoint", adjoint_tolerance=tolerance) for tolerance in (1e-1, 1e-6))
    assert not torch.equal(loose, tight)


def test_a_tolerance_for_each_image_is_subset_with_the_rows():
    net = small_ode_net().at(torch.tensor([1e-1, 1e-3, 1e-6]), adjoint_tolerance=torch.tensor([1e-1, 1e-2, 1e-3]))
    pair: Any = net.rows(torch.tensor([2])).settings.adjoint_tolerance
    rtol, atol = pair
    assert rtol.tolist() == atol.tolist() == pytest.approx([1e-3])
    assert net.rows(torch.tensor([2])).predict(pictures(3)[2:]).nfe == net.predict(pictures(3)).nfe[2]


def test_the_trajectory_ends_in_the_prediction():
    net, images = small_ode_net(), pictures(5)
    found = net.trajectory(images, times=[0.0, 0.5, 1.0])
    assert found.path.shape == (5, 3, *found.y.shape[1:])
    torch.testing.assert_close(found.path[:, 0], net.stem(images))
    torch.testing.assert_close(found.path[:, 2], found.y)
    torch.testing.assert_close(net.head(found.y), net(images))
    assert found.log.sample.unique().tolist() == list(range(5))
    with pytest.raises(InvalidInput, match="values in"):
        net.trajectory(images * 300)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_field_gives_the_same():
    """In a process of its own: torch.compile cannot trace through the run-time type checks of the tests."""
    code = """
import torch
from toys import pictures, small_ode_net
net, images = small_ode_net(), pictures(3)
with torch.no_grad():
    torch.testing.assert_close(net.at(compiled=True)(images), net(images), rtol=1e-9, atol=1e-9)
assert torch._dynamo.utils.counters["frames"]["ok"] > 0
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_compiled_field_has_no_adjoint():
    with pytest.raises(InvalidInput, match="compiled"):
        small_ode_net().at(compiled=True, gradient="adjoint")
