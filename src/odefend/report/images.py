"""Which images a table is about, told by their ids."""

from collections.abc import Iterable


def those(ids: Iterable[str], split: str = "test") -> str:
    """As in "the first 200 test images", where their ids count up from zero as in a published file; else "200 test images"."""
    ends = sorted({name.rpartition("/")[2] for name in ids})
    first = ends == [f"{i:0{len(ends[0])}d}" for i in range(len(ends))] if ends and ends[0] else False
    return f"{'the first ' if first else ''}{len(ends)} {split} images"
