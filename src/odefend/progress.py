"""What long work tells whoever waits for it; the command line draws it, a library call is silent."""

from collections.abc import Mapping
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


class Pace:
    """How much of many pieces of work is done, by what each was expected to cost, (kind, cost) by key: corrected, while they are
    done, by what those of the same kind took.

    Expectations are wrong by kind: attacks that stop early, gradients that cost more than others, a machine with other load.
    """

    def __init__(self, pieces: Mapping[str, tuple[str, float]]) -> None:
        self.pieces, self.shares = pieces, dict[str, float]()
        self.taken: dict[str, tuple[float, float]] = {}  # by kind: seconds, and what was expected of the same pieces

    def heard(self, shares: Mapping[str, float]) -> None:
        """Pieces under way, and which share of each is done."""
        self.shares |= {key: min(share, 0.99) for key, share in shares.items() if self.shares.get(key) != 1.0}

    def finished(self, key: str, seconds: float | None) -> None:
        """A piece is done, and took so long; None: nobody knows."""
        self.shares[key] = 1.0
        if seconds is not None:
            kind, cost = self.pieces[key]
            before = self.taken.get(kind, (0.0, 0.0))
            self.taken[kind] = before[0] + seconds, before[1] + cost

    def done(self) -> float:
        """How much is done, as a part of the sum of all costs."""
        total = sum(cost for _, cost in self.pieces.values())
        whole, mine = 0.0, 0.0
        for key, (kind, cost) in self.pieces.items():
            now = cost * self._ratio(kind)
            whole, mine = whole + now, mine + now * self.shares.get(key, 0.0)
        return total * mine / whole if whole else 0.0

    def _ratio(self, kind: str) -> float:
        """Seconds for each unit of expected cost: of this kind, or as long as nothing of it is done, of all others."""
        seconds, expected = self.taken.get(kind) or map(sum, zip((0.0, 0.0), *self.taken.values(), strict=True))
        return seconds / expected if seconds > 0 and expected > 0 else 1.0
