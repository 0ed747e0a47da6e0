"""Which odefend this is."""

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

VERSION = version("odefend")


@lru_cache
def code_version() -> str:
    """Version and sources, as in 0.1.0+1a2b3c4d: rows made by other code are other rows."""
    return f"{VERSION}+{code_digest()[:8]}"


@lru_cache
def code_digest() -> str:
    """12 hex digits that change with any line of the package's sources."""
    digest, root = hashlib.sha256(), Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
