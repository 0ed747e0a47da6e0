"""Writing files: whatever library makes them, a full disk is one error of ours, and leaves what was there."""

import pytest
import torch
from limits import full_disk
from toys import small_ode_net

from odefend.detectors import OnePassMargin, save_detector
from odefend.errors import LONGEST, InvalidInput, OutputError, unknown
from odefend.files import write_text
from odefend.ledger import Ledger
from odefend.models import save
from odefend.training import read_recipe
from odefend.training.state import Saver, State


def training_state(folder, oon):
    optimizer = torch.optim.SGD(oon.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    Saver(folder / "state", read_recipe("digits-oon")).save(oon, optimizer, schedule, State())


WRITERS = {
    "checkpoint": lambda folder, oon: save(oon, oon.card, folder / "net"),
    "detector": lambda folder, oon: save_detector(OnePassMargin(small_ode_net()), folder / "x"),
    "training state": training_state,
    "rows": lambda folder, oon: Ledger(folder).write("scored", "ab" * 10, {"image": [f"{i:x}" for i in range(9999)]}),
    "images": lambda folder, oon: Ledger(folder).write_images("ab" * 10, torch.rand(20, 1, 8, 8)),
    "text": lambda folder, oon: write_text(folder / "x", "x" * 9999),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_error_of_ours(name, oon, tmp_path):
    """polars, safetensors and torch have errors of their own for it."""
    with full_disk(200), pytest.raises(OutputError, match=r"cannot write .*Free some space") as caught:
        WRITERS[name](tmp_path, oon)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing half-written is left"


def test_a_message_has_an_end_whatever_was_wrong():
    """Its beginning says what, its end what to do."""
    for error in (
        InvalidInput(f"tolerance: expected a number, got {'9' * 10**6!r}. Try 1e-3."),
        unknown("net", "9" * 10**4, ["a"]),
    ):
        assert len(str(error)) <= LONGEST
    assert str(InvalidInput(f"x: got {'9' * 10**6}. Try 1e-3.")).endswith("99. Try 1e-3.")
