"""A table as a value, and how it looks in Markdown, CSV and LaTeX."""

import csv
import io
from dataclasses import dataclass
from typing import Any


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
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{body}\n\n{self.note}"

    @property
    def csv(self) -> str:
        """The cells as comma-separated values, the heads first."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.rows])
        return text.getvalue().rstrip("\n")

    @property
    def latex(self) -> str:
        """The cells as a LaTeX tabular (booktabs), with title and note as its caption."""
        lines = [" & ".join(map(_latex, line)) + r" \\" for line in (self.columns, *self.rows)]
        return "\n".join(
            (
                r"\begin{table}",
                rf"\caption{{{_latex(self.title)}. {_latex(self.note)}}}",
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


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
