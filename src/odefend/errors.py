"""What odefend raises when it is used wrongly: every message says what was expected, what came, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 1000
"""Characters of a message; what was wrong may be a value of any length."""


class OdefendError(Exception):
    """The base of all errors that a user can cause; the command line prints it without a traceback."""

    def __init__(self, message: object = "", *others: object) -> None:
        text = str(message)
        super().__init__(text if len(text) <= LONGEST else f"{text[:600]} ... {text[-300:]}", *others)


class Stopped(KeyboardInterrupt):
    """Ctrl-C in work of which something is finished, and kept: the same work goes on from there."""


class Interrupted(OdefendError):
    """Ctrl-C on the command line, where there is more to say of it."""


class InvalidInput(OdefendError, ValueError):
    """An argument has the wrong shape, range, type or combination."""


class NotFitted(OdefendError):
    """A detector is asked for a score before it has learned what it needs."""


class UnknownName(OdefendError, KeyError):
    """A name (of a model, recipe, key, ...) is not one of the known ones."""

    def __str__(self) -> str:
        # KeyError would print the repr of the message.
        return str(self.args[0])


class CheckpointError(OdefendError):
    """A checkpoint file is missing, corrupt or not one of odefend's."""


class DataError(OdefendError):
    """A data set is not there, or one of its files is truncated, damaged or foreign."""


class DownloadError(OdefendError):
    """An address cannot be reached, or what comes from there is not what was published."""


class OutputError(OdefendError):
    """A result cannot be written or read where the user asked for it."""


class MissingExtra(OdefendError):
    """A package that odefend needs for this only is not installed."""


class OdefendWarning(UserWarning):
    """Something that a user should know of, though the work goes on."""


def unknown(kind: str, name: object, known: Iterable[str]) -> UnknownName:
    """The error for an unknown `name` of a `kind`, with the nearest known name or all of them."""
    names = sorted(known)
    close = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names)}."
    return UnknownName(f"unknown {kind} {name!r}. {hint}")
