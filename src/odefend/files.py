"""Writing files so that a reader sees the old content or the new one, never a half."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from odefend.errors import OutputError


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
