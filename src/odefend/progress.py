"""What long work tells whoever waits for it; the command line draws it, a library call is silent."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """A listener for stages of work."""

    def stage(self, name: str, total: float) -> None:
        """A stage begins that will amount to `total`."""

    def advance(self, done: float, note: str = "") -> None:
        """The current stage now stands at `done` of its total."""


class Silent:
    """Says nothing."""

    def stage(self, name: str, total: float) -> None:
        """Ignored."""

    def advance(self, done: float, note: str = "") -> None:
        """Ignored."""
