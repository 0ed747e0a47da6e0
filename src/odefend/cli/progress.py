"""Progress for people: a live bar on a terminal, plain lines elsewhere, nothing when asked to be quiet."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from odefend.cli.console import printable, warn
from odefend.errors import Interrupted, OutputError, Stopped
from odefend.progress import Progress, Silent

EVERY = 10.0
"""Seconds between plain lines."""


ROUGHLY = 10.0
"""Seconds after which the time left is told, however little is done."""


def clock(seconds: float) -> str:
    """As 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def duration(seconds: float) -> str:
    """As "12 minutes" or "3.5 days"."""
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds:.0f} seconds"


class _Clock:
    """How long a stage has left, judging by how long its done part took."""

    def __init__(self) -> None:
        self.start, self.base = time.monotonic(), 0.0

    def left(self, done: float, total: float) -> float | None:
        """Seconds; None until enough is done to tell, or, roughly, for ten seconds. What was done at the start (a resumed run) took
        no time."""
        elapsed = time.monotonic() - self.start
        if done <= self.base or elapsed < 2 or (done - self.base < 0.02 * total and elapsed < ROUGHLY):
            return None
        return elapsed * (total - done) / (done - self.base)


class Live:
    """A bar that shows the stage, the share done, and the time left."""

    def __init__(self, bars: Bars) -> None:
        self.bars, self.task, self.total, self.clock = bars, TaskID(-1), 1.0, _Clock()
        self.first = True

    def stage(self, name: str, total: float) -> None:
        """Begin a bar."""
        self.total, self.clock, self.first = max(total, 1e-9), _Clock(), True
        self.task = self.bars.add_task(escape(printable(name)), total=self.total, left="", note="")

    def advance(self, done: float, note: str = "") -> None:
        """Move it."""
        if self.first:
            self.clock.base, self.first = done, False
        left = self.clock.left(done, self.total)
        self.bars.update(
            self.task,
            completed=done,
            note=escape(printable(note)),
            left=f"{clock(left)} left" if left is not None else "",
        )


class Plain:
    """Lines for a log: one at the start, then at most one every ten seconds, and one at the end."""

    def __init__(self) -> None:
        self.name, self.total, self.clock, self.last, self.first = "", 1.0, _Clock(), 0.0, True

    def stage(self, name: str, total: float) -> None:
        """Say that it begins."""
        self.name, self.total, self.clock, self.last, self.first = (
            name,
            max(total, 1e-9),
            _Clock(),
            time.monotonic(),
            True,
        )
        warn(f"{name}: started")

    def advance(self, done: float, note: str = "") -> None:
        """Say how far it is, now and then."""
        if self.first:
            self.clock.base, self.first = done, False
        finished = done >= self.total * (1 - 1e-9)
        if not finished and time.monotonic() - self.last < EVERY:
            return
        if finished and self.name == "":
            return
        self.last = time.monotonic()
        left = self.clock.left(done, self.total)
        rest = f", {clock(left)} left" if left is not None and not finished else ""
        warn(f"{self.name}: {100 * done / self.total:3.0f} %{rest}{', ' + note if note else ''}")
        if finished:
            self.name = ""


class Events:
    """Every step of the progress as a line of JSON in a file, beside what a display shows."""

    def __init__(self, shown: Progress, file: TextIO) -> None:
        self.shown, self.file, self.total = shown, file, 1.0

    def stage(self, name: str, total: float) -> None:
        """Pass it on, and write it."""
        self.total = max(total, 1e-9)
        self._write(event="stage", name=name)
        self.shown.stage(name, total)

    def advance(self, done: float, note: str = "") -> None:
        """Pass it on, and write it."""
        self._write(event="progress", share=round(min(1.0, done / self.total), 4), note=note)
        self.shown.advance(done, note)

    def _write(self, **event: str | float) -> None:
        self.file.write(json.dumps({"time": round(time.time(), 3), **event}) + "\n")
        self.file.flush()


@contextmanager
def showing(quiet: bool, events: Path | None = None) -> Iterator[Progress]:
    """The progress display that fits where standard error goes; with `events`, lines of JSON go to that file as well."""
    with _told(), _displayed(quiet) as shown:
        if events is None:
            yield shown
            return
        try:
            file = events.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {events}: {error.strerror or error}.") from error
        with file:
            yield Events(shown, file)


@contextmanager
def _told() -> Iterator[None]:
    """Say that something is kept, only where it is: typer lets go of what Ctrl-C came with."""
    try:
        yield
    except Stopped as error:
        raise Interrupted("stopped. What was finished is kept; the same command goes on from there.") from error


@contextmanager
def _displayed(quiet: bool) -> Iterator[Progress]:
    console = Console(stderr=True)
    if quiet:
        yield Silent()
    elif not console.is_terminal:
        yield Plain()
    else:
        with Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
        ) as bars:
            yield Live(bars)
