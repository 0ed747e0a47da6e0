"""Tables for other programs."""

import csv
from dataclasses import replace

from odefend.cli.output import show
from odefend.report import Table


def test_tables_for_other_programs():
    asked = Table("Recovered?", ("C&W", "share"), (("a\nb | c", "9 % [1, 2]"),), "C&W made at .001.")
    assert asked.csv.splitlines()[0] == "C&W,share"
    assert asked.markdown.splitlines()[1] == "| --- | --- |" and "| a b \\| c |" in asked.markdown
    assert r"\toprule" in asked.latex and r" \% [" in asked.latex and r"\caption{Recovered? C\&W made" in asked.latex
    assert r"a b | c" in asked.latex and r"caption{Recovered. C" in replace(asked, title="Recovered").latex


def test_no_cell_of_a_csv_is_a_formula():
    """A name may be one; numbers stay numbers."""
    wild = ("=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", "\t=1")
    tame = ("-", "-0.5", "+3.1 [+1.0, +5.2]", "-1e-05", "97.4 % [95.6, 98.5]", "C&W", "")
    cells = next(csv.reader([Table("t", wild + tame, (), "").csv]))
    assert cells == [f"'{cell}" for cell in wild] + list(tame)


def test_a_row_told_in_words_leaves_out_what_is_empty(capsys):
    """Where a table is too wide for columns, a cell without a number says nothing."""
    heads = ("net", *(f"{'wide' * 4} {number}" for number in range(9)))
    show(Table("t", heads, (("mine", "1 %", *[""] * 7, "9 %"),), ""))
    told = " ".join(capsys.readouterr().out.split())
    assert told == f"t mine {heads[1]}: 1 %; {heads[9]}: 9 %"
