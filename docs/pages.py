"""Pages of which parts are generated: what stands between a marker `<!-- name -->` and the next `<!-- end -->`."""

import re
from collections.abc import Mapping
from pathlib import Path


def filled(page: Path, parts: Mapping[str, str]) -> str:
    """The page's text with that of each part between the markers of its name, and all else as it is.

    Raises ValueError where a part has not exactly one pair of markers, without another marker between them.
    """
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        block = rf"(<!-- {re.escape(name)} -->\n)(?:(?!<!--).)*(<!-- end -->)"
        text, count = re.subn(block, lambda m, part=part: f"{m[1]}{part}\n{m[2]}", text, flags=re.S)
        if count != 1:
            raise ValueError(
                f"{page.name}: expected one pair of markers <!-- {name} --> and <!-- end -->, each on a line of its own, got "
                f"{count}. Put one pair where the part belongs."
            )
    return text


def fill(page: Path, parts: Mapping[str, str]) -> None:
    """Write the page anew with its parts `filled`."""
    page.write_text(filled(page, parts), encoding="utf-8")
