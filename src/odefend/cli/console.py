"""Standard output and standard error, whatever they are: closed, full, a terminal that obeys what names of files say."""

import errno
import os
import sys
from collections.abc import Callable

LOST = {errno.ENOSPC: "no space is left where it goes", errno.EBADF: "it is closed", errno.EIO: "its terminal is gone"}


def printable(text: str) -> str:
    """The text with whatever could command a terminal, or is no character at all, as escapes: names of files and trials may hold
    anything."""
    return "".join(sign if sign.isprintable() or sign == "\n" else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


def write(text: str) -> None:
    """A text for a program, as it is."""
    written(lambda: sys.stdout.write(text))


def written(act: Callable[[], object]) -> None:
    """Write to standard output now, so that what goes wrong is told and not lost at the end."""
    try:
        act()
        sys.stdout.flush()
    except OSError as error:
        # What is left unwritten must not be tried again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:  # whoever read it has had enough, as head has
            sys.exit(1)
        raise


def lost(error: OSError) -> str | None:
    """What to say of an error of standard output; None of any other."""
    reason = LOST.get(error.errno or 0)
    return reason and f"cannot write to standard output: {reason}."


def warn(text: str) -> None:
    """A line on standard error, wherever that goes: what is said there is not worth losing work for."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"{printable(text)}\n")
            sys.stderr.flush()
    except OSError:
        pass
