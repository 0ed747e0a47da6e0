"""Checksums inside of files: the SHA-256 of a file with the place that holds it blank, so that damage is seen."""

import hashlib
import mmap
from pathlib import Path

MARK = "odefend-sha256:"
DIGITS = 64
BLANK = MARK + "0" * DIGITS
"""What stands in a file's metadata, once, before it is sealed."""


def sealed(content: bytes) -> bytes:
    """A file's content, which holds BLANK once, with the checksum in its place. Raises ValueError where it does not."""
    if content.count(MARK.encode()) != 1 or BLANK.encode() not in content:
        raise ValueError(f"expected {BLANK} once in what is to be sealed.")
    return content.replace(BLANK.encode(), f"{MARK}{hashlib.sha256(content).hexdigest()}".encode())


def is_intact(path: Path) -> bool | None:
    """Whether a file is as it was sealed; None where it has no seal. Raises OSError where it cannot be read."""
    if not path.stat().st_size:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        mark = content.find(MARK.encode())
        if mark < 0:
            return None
        start = mark + len(MARK)
        digest = hashlib.sha256()
        with memoryview(content) as view:
            digest.update(view[:start])
            digest.update(b"0" * DIGITS)
            digest.update(view[start + DIGITS :])
        return content[start : start + DIGITS] == digest.hexdigest().encode()
