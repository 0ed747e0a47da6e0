"""One self-contained HTML page: inline SVG, no script, nothing fetched from anywhere."""

from dataclasses import dataclass
from pathlib import Path

import jinja2

from odefend.files import write_text
from odefend.metrics.signs import Check
from odefend.report.headline import Headline
from odefend.report.table import Table

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs of plain words, and what they are read off: figures and tables."""

    title: str
    text: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()  # (SVG, caption)
    tables: tuple[Table, ...] = ()
    checks: tuple[tuple[str, tuple[Check, ...]], ...] = ()  # (of which model, checks)
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    lead: str
    findings: tuple[str, ...]
    sections: tuple[Section, ...]
    headline: Headline | None = None


def write_page(page: Page, path: Path) -> None:
    """Render a report to `path`, atomically."""
    write_text(path, _TEMPLATES.get_template("report.html").render(page=page))
