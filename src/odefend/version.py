"""Which odefend this is."""

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

VERSION = version("odefend")


_AROUND = (
    "cluster",
    "compare",
    "doubts",
    "evaluate",
    "file",
    "plan",
    "pool",
    "robustness",
    "runner",
    "spec",
    "tuning",
    "verify",
)
BESIDE_ROWS = (
    *("cli/", "report/", "studies/", "training/", "download.py", "progress.py", "__init__.py"),
    *(f"evaluation/{name}.py" for name in _AROUND),
)
"""Sources that no row depends on: what runs the work, and what is made of its rows."""


@lru_cache
def code_version() -> str:
    """The version, and a digest of torch's and of the sources that decide rows, as in 0.1.0+1a2b3c4d: rows made by other code
    are other rows."""
    return f"{VERSION}+{_digest(without=BESIDE_ROWS)[:8]}"


@lru_cache
def code_digest() -> str:
    """12 hex digits that change with any line of the package's sources."""
    return _digest(without=())


def _digest(without: tuple[str, ...]) -> str:
    digest, root = hashlib.sha256(version("torch").encode()), Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(without):
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
