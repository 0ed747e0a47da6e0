"""Writing files so that a reader sees the old content or the new one, never a half; locks; reading texts."""

import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from odefend.errors import OutputError

DEEPEST = 20
"""Tables and lists within each other that a file of ours may have."""

MOST_TEXT = 1 << 24
"""Bytes of a text file; what is read out of one can take fifty times as many."""


def read_text(path: Path) -> str:
    """A text file in UTF-8. Raises OSError where it cannot be read or is larger than any of ours, and UnicodeDecodeError."""
    if path.stat().st_size > MOST_TEXT:
        raise OSError(f"larger than {MOST_TEXT:,} bytes")
    return path.read_text(encoding="utf-8")


def make_folder(folder: Path) -> Path:
    """Create a folder and show that it can be written to; OutputError if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to the folder {folder}: {error.strerror or error}. Choose another one or change its rights."
        ) from error
    return folder


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there in one step."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        part = Path(name)
        try:
            write(part)
            # mkstemp makes files private; give this one the rights that any new file has.
            mask = os.umask(0)
            os.umask(mask)
            part.chmod(0o666 & ~mask)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Free some space or choose another folder."
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Libraries that write files of their own kind report a full disk each by another error, some of them as a broken file: let
    them write to memory, and the disk is left to this function.
    """
    write_atomically(path, lambda part: part.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """While this process alone has the lock at `path`, which the system frees however the process ends. Raises OutputError where
    another has it, saying `what` it does."""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputError(f"{path.parent}: another run is {what}. Wait for it, or choose another folder.") from error
    try:
        yield
    finally:
        lock.release()


def parse_toml(text: str) -> dict[str, Any]:
    """What a TOML text says. Raises TOMLDecodeError where it is none, or nested more deeply than anything of ours."""
    try:
        values = tomllib.loads(text)
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("nested too deeply") from error
    if _deeper(values, DEEPEST):
        raise tomllib.TOMLDecodeError("nested too deeply")
    return values


def _deeper(value: Any, than: int) -> bool:
    """Whether tables and lists are nested more than so many times."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return than < 0 or any(_deeper(one, than - 1) for one in inside)
