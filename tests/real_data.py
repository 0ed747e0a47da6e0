"""Where tests find real data: $ODEFEND_DATA, else archives beside the checkout, unpacked once."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data(tmp_path_factory) -> Path:
    """A folder of data sets; its tests are skipped where there is none."""
    given = os.environ.get("ODEFEND_DATA")
    if given:
        return Path(given)
    if not (BESIDE / "unpack").exists():
        pytest.skip("no real data: set ODEFEND_DATA to a folder with mnist, cifar-10-batches-py and tiny-imagenet-200")
    # Above the folders of single workers, so that one of them unpacks for all.
    shared = tmp_path_factory.getbasetemp().parent / "real-data"
    with (shared.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([BESIDE / "unpack", shared], check=True)
    return shared
