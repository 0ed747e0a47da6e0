"""Files that are damaged or forged: each gives one clear line of ours or a valid result, and none executes or takes much."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing.child import MUTATIONS
from fuzzing.formats import FORMATS

MOST_MIB = 1536


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_and_forged_files(name, tmp_path):
    """300 of each format, in a process of its own that may take 60 seconds of a processor and 1.5 GiB, libraries included."""
    folder = tmp_path / "files"
    folder.mkdir()
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    ended = subprocess.run(
        [sys.executable, "-m", "fuzzing.child", name, str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": path, "RUST_BACKTRACE": "0"},
    )
    at = (folder / "number").read_text() if (folder / "number").exists() else "none"
    assert ended.returncode == 0, f"ended by {ended.returncode} at file {at}: {ended.stderr[-2000:]}"
    told = json.loads(ended.stdout)
    assert set(told["came"]) <= {"refused", "read"}, told["came"]
    assert sum(told["came"].values()) == MUTATIONS and told["came"]["refused"] > 20
    assert told["seen"] == [], "something was executed, or written elsewhere"
    assert told["MiB"] < MOST_MIB and "Traceback" not in ended.stderr
