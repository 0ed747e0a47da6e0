"""Where tests find real data: $ODEFEND_DATA, else archives beside the checkout, unpacked once."""

import os
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

BESIDE = Path(__file__).parents[2] / "shared" / "data"


def shared(tmp_path_factory) -> Path:
    """A folder for all workers of one run of the tests."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def real_data(tmp_path_factory) -> Path:
    """A folder of data sets; its tests are skipped where there is none."""
    given = os.environ.get("ODEFEND_DATA")
    if given:
        return Path(given)
    if not (BESIDE / "unpack").exists():
        pytest.skip("no real data: set ODEFEND_DATA to a folder with mnist, cifar-10-batches-py and tiny-imagenet-200")
    place = shared(tmp_path_factory) / "real-data"
    with FileLock(place.with_suffix(".lock")):
        subprocess.run([BESIDE / "unpack", place], check=True)
    return place
