"""A table as a value, and how it looks in Markdown, CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odefend.files import make_folder, write_text


@dataclass(frozen=True)
class Table:
    """A table with a title, column heads, text cells, a note that says what it rests on, and for each row the numbers
    behind its texts, by their heads."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    numbers: tuple[dict[str, Any], ...] = ()

    @property
    def markdown(self) -> str:
        """The cells as a table in Markdown, with its note below."""
        lines = (self.columns, ("---",) * len(self.columns), *self.rows)
        body = "\n".join("| " + " | ".join(_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{body}\n\n{self.note}"

    @property
    def csv(self) -> str:
        """The cells as comma-separated values, the heads first; see `no_formula`."""
        text = io.StringIO()
        lines = [[no_formula(cell) for cell in line] for line in (self.columns, *self.rows)]
        csv.writer(text, lineterminator="\n").writerows(lines)
        return text.getvalue().rstrip("\n")

    @property
    def latex(self) -> str:
        """The cells as a LaTeX tabular (booktabs), with title and note as its caption."""
        lines = [" & ".join(map(_latex, line)) + r" \\" for line in (self.columns, *self.rows)]
        return "\n".join(
            (
                r"\begin{table}",
                rf"\caption{{{_latex(_sentence(self.title))} {_latex(self.note)}}}",
                rf"\begin{{tabular}}{{{'l' * len(self.columns)}}}",
                r"\toprule",
                lines[0],
                r"\midrule",
                *lines[1:],
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            )
        )


def no_formula(cell: str) -> str:
    """A cell that spreadsheets take for text: what they would take for a formula, other than numbers, begins with an apostrophe,
    for a cell may hold the name of somebody's file (CWE-1236)."""
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBERS.fullmatch(cell) else cell


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBERS = re.compile(r"-|[-+][-+0-9.,e%\[\]() ]*")


def _line(text: str) -> str:
    """In one line."""
    return " ".join(text.splitlines())


def _sentence(title: str) -> str:
    return title if title.endswith((".", "?", "!")) else f"{title}."


def write_tables(tables: Iterable[Table], folder: Path) -> None:
    """Write tables as N.csv, N.md and N.tex into a folder, counted from 1."""
    make_folder(folder)
    for number, table in enumerate(tables, 1):
        for kind, text in (("csv", table.csv), ("md", table.markdown), ("tex", table.latex)):
            write_text(folder / f"{number}.{kind}", text + "\n")


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in _line(text))
