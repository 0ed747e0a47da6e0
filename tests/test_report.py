"""An evaluation at smoke size: the whole path, its report, and the promise that every number comes from rows."""

import csv
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from odefend.cli.output import show
from odefend.errors import InvalidInput, OdefendWarning, OutputError, UnknownName
from odefend.evaluation import Ledger, estimate, evaluate, evaluations_in, opened, read_evaluation, robustness
from odefend.evaluation.plan import Plan
from odefend.experiments import holds_experiment
from odefend.progress import Silent
from odefend.report import Table, evaluation_page, figures, findings, tables
from odefend.report.published import published_lessons, published_table
from odefend.report.questions import doubts
from odefend.report.rows import Rows
from odefend.report.threat import threat

pytestmark = pytest.mark.xdist_group("report")  # one process shares the measured folder

TEXT = """
name = "smoke"
net = "digits-oon"
control = "digits-res"
data = "digits"
images = 10
clean = 16
calibration = 20
tolerances = [1e-6, 1e-5, 1e-3, 1e-1, 1.0, 10.0]
epsilon = 0.1
shard = 10

[vote]
votes = 5

[[trials]]
name = "C&W"
attack = "carlini-wagner"
settings = { steps = 12, binary_search_steps = 2, initial_constant = 10.0 }
control = true
judged = "everywhere"

[[trials]]
name = "PGD"
attack = "pgd"
settings = { steps = 4 }
epsilon = [0.1, 0.3, 1.0]
control = true

[[trials]]
name = "PGD, all steps"
attack = "pgd"
settings = { steps = 4, early_stop = false }
epsilon = [0.1]
at = [1e-3, 1e-1, 10.0]
judged = "matrix"
traced = true

[[trials]]
name = "gradients of the loose solve"
attack = "pgd"
settings = { steps = 4 }
epsilon = [0.1]
at = [1e-1]
source = { tolerance = 1e-5 }
beside = "PGD, all steps"

[[published]]
source = "Somebody (2020), table 1"
trial = "PGD"
epsilon = 0.1
at = [1e-3]
success = [0.375]

[[published]]
source = "Somebody (2020), table 1"
trial = "PGD"
control = true
epsilon = 0.1
success = [0.5]

[[published]]
source = "Somebody (2020), table 1"
trial = "PGD, all steps"
epsilon = 0.1
at = [10.0, 1e-3]
success = [0.25, 0.75]

[[published]]
source = "Somebody else (2021)"
trial = "C&W"
at = [1e-3]
success = [1.0]
mse = [0.0123]
"""
SMOKE = read_evaluation(TEXT)
GRID = (1e-3, 1e-1, 10.0)
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate(SMOKE, folder, Silent(), workers=1)
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    return Rows.read(*opened(folder, "smoke"))


def about(rows, **changed):
    """The rows with other tables in place of some."""
    return replace(rows, **changed)


def test_a_second_run_does_nothing_again(folder, rows):
    def files():
        return {path: path.stat().st_mtime_ns for path in (folder / "ledger").rglob("*.parquet")}

    before = files()
    assert len(before) > 20
    assert estimate(SMOKE, folder).total == 0
    evaluate(SMOKE, folder, Silent(), workers=1)
    assert files() == before
    assert Rows.read(*opened(folder, "smoke")).scored.height == rows.scored.height


def test_what_two_evaluations_share_is_done_once(folder, rows):
    """Another name, one more trial, in the same folder: what both craft is crafted once, and the rows are not mixed."""
    crafted = set((folder / "ledger" / "crafted").iterdir())
    other = read_evaluation(
        TEXT.replace('"smoke"', '"other"').replace("epsilon = [0.1, 0.3, 1.0]", "epsilon = [0.1, 0.2]")
    )
    evaluate(other, folder, Silent(), workers=1)
    new = set((folder / "ledger" / "crafted").iterdir()) - crafted
    assert len(new) == 2, "PGD at radius 0.2 on two nets"
    mine, theirs = (Rows.read(*opened(folder, name)) for name in ("smoke", "other"))
    assert set(mine.made("PGD")["epsilon"]) == {0.1, 0.3, 1.0} and set(theirs.made("PGD")["epsilon"]) == {0.1, 0.2}
    assert mine.crafted.equals(rows.crafted) and evaluations_in(folder) == ["other", "smoke"]


def test_a_report_says_which_images_these_are(rows):
    """The first ones, with a warning, or drawn at random."""
    assert "they are no sample of it" in str(threat(rows))
    drawn = replace(rows, evaluation=rows.evaluation.model_copy(update={"sample": 7}))
    assert "drawn at random from each split, by the seed 7" in str(threat(drawn))


def test_the_report_is_one_self_contained_page(folder, rows):
    page = evaluation_page.write(rows, folder, 12.0).read_text()
    assert not re.search(r'(?:src|href)="(?!#|data:)', page), "nothing may be fetched"
    assert "<script" not in page and "@import" not in page and "url(http" not in page
    assert page.count("<svg") == 11
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        ET.fromstring(svg)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "figures must not share ids"
    for words in (
        "Who attacks, and how",
        "unrolled",
        "tolerance minus noise",
        "What should be doubted",
        "12 s",
        "threshold",
    ):
        assert words in page
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()


def test_the_same_rows_give_the_same_page(folder, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        evaluation_page.write(Rows.read(*opened(folder, "smoke")), tmp_path / name)
    first, second = (sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("a", "b"))
    assert len(first) == 1 + 3 * len(evaluation_page.summary(Rows.read(*opened(folder, "smoke"))))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_other_rows_give_other_numbers(rows):
    """Other outcomes: each table, figure and finding must change."""
    flipped = about(
        rows,
        crafted=rows.crafted.with_columns(success=~pl.col("success"), l2=pl.col("l2") + 1),
        judged=rows.judged.with_columns(correct=pl.lit(False), nfe=pl.col("nfe") + 5),
        scored=rows.scored.with_columns(score=-pl.col("score")),
        traced=rows.traced.with_columns(attack_success=~pl.col("attack_success")),
    )
    for table, other in zip(evaluation_page.summary(rows), evaluation_page.summary(flipped), strict=True):
        assert table.rows != other.rows, table.title
    one, two = (evaluation_page.page(which) for which in (rows, flipped))
    for section, other in zip(one.sections, two.sections, strict=False):
        if section.figures and section.title != "Gallery":
            assert section.figures != other.figures, section.title
    for lesson, other in zip(one.findings, two.findings, strict=True):
        assert lesson != other


def test_published_numbers_stand_beside_the_measured_ones(rows):
    """Each beside the share of just its attack, net, radius and tolerance."""
    on_net, on_control, loose, tight, searched = published_table(rows).rows
    for row, tolerance, printed in ((loose, 10.0, "25.0 %"), (tight, 1e-3, "75.0 %")):
        made = rows.crafted.filter(
            (pl.col("trial") == "PGD, all steps") & (pl.col("rtol") == tolerance) & ~pl.col("initially_wrong")
        )
        share = 100 * sum(made["success"].to_list()) / made.height
        assert row[3:5] == (f"{tolerance:g}", printed) and row[5].startswith(f"{share:.1f} %")
    assert loose[5] != tight[5], "or this test cannot tell one tolerance from another"
    for row, net in ((on_net, "digits-oon"), (on_control, "digits-res")):
        made = rows.made("PGD", net, 0.1).filter(~pl.col("initially_wrong"))
        share = 100 * sum(made["success"].to_list()) / made.height
        assert row[:3] == ("PGD", net, "0.1") and row[5].startswith(f"{share:.1f} %")
    assert on_net[3:5] == ("0.001", "37.5 %") and on_control[3:5] == ("-", "50.0 %")
    hits = rows.made("C&W", "digits-oon").filter("success", ~pl.col("initially_wrong"))["mse"]
    assert searched[7] == "0.0123" and searched[8].startswith(f"{hits.mean():.3g} [")


def test_a_lesson_compares_what_tolerance_does_in_print_and_here(rows):
    (lesson,) = published_lessons(rows)
    ends = [f"{100 * made['success'].mean():.1f} %" for at in (1e-3, 10.0) for made in [attacked_by(rows, at)]]
    assert "breaks 75.0 % of the images at tolerance 0.001 and 25.0 % at 10; here" in lesson
    assert [piece.split(" [")[0] for piece in lesson.split("here it breaks ")[1].split(" and ")][:2] == ends


def attacked_by(rows, at):
    made = rows.made("PGD, all steps", "digits-oon", 0.1, at)
    return made.filter(~pl.col("initially_wrong"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('trial = "PGD"\nepsilon = 0.1', 'trial = "PDG"\nepsilon = 0.1'), "PGD"),
        (("epsilon = 0.1\nat = [1e-3]", "epsilon = 0.4\nat = [1e-3]"), "epsilon: expected one of"),
        (
            ("at = [1e-3]\nsuccess = [0.375]", "at = [1e-3, 1e-1]\nsuccess = [0.375]"),
            "at: expected the tolerance of each",
        ),
        (
            ("at = [10.0, 1e-3]\n", ""),
            r"at: expected the tolerance of each number, some of \[0.001, 0.1, 10.0\], got \[\]",
        ),
        (("success = [0.375]", "success = [0.375, 0.5]"), "expected 1 numbers, got 2"),
        (("success = [0.375]", "success = [37.5]"), "less than or equal to 1"),
        (
            ('trial = "PGD"\ncontrol = true', 'trial = "PGD, all steps"\ncontrol = true'),
            "expected a trial on the control",
        ),
    ],
)
def test_published_numbers_that_nothing_stands_beside_are_refused(change, message):
    assert change[0] in TEXT
    with pytest.raises((InvalidInput, UnknownName), match=message):
        read_evaluation(TEXT.replace(*change))


def test_numbers_of_the_recovery_table_by_hand(rows):
    (trial, at) = rows.everywhere()[0]
    table = tables.recovery(rows.about(trial, at), "digits-oon", SMOKE.tolerances, rows.doses, at, trial.name)
    fooled = rows.judged.filter(
        (pl.col("experiment") == "recovery")
        & (pl.col("net") == "digits-oon")
        & pl.col("attack_success")
        & (pl.col("scale") == 1.0)
        & (pl.col("rtol") == 1.0)
        & (pl.col("defense") == "tolerance")
    )
    share = 100 * sum(fooled["correct"].to_list()) / fooled.height
    (row,) = [row for row in table.rows if row[0] == "1"]
    assert row[2].startswith(f"{share:.1f} %")
    (attacked,) = [row for row in table.rows if "(attacked)" in row[0]]
    assert attacked[2].startswith("0.0 %"), "at the attacked tolerance every successful image fools the net"


def test_a_net_without_a_solver_is_evaluated_as_well(tmp_path):
    """There is nothing to judge over, but the attacks and what withstands them are there."""
    text = TEXT[: TEXT.index('[[trials]]\nname = "PGD, all')].replace("[vote]\nvotes = 5\n", "")
    text = text.replace('control = "digits-res"\n', "").replace("control = true\n", "")
    small = read_evaluation(text.replace("digits-oon", "digits-res"), {"images": 4, "clean": 4})
    rows = Rows.read(small, evaluate(small, tmp_path, Silent(), workers=1))
    page = evaluation_page.write(rows, tmp_path).read_text()
    first = evaluation_page.lessons(rows)[0]
    assert "no data" not in first and "at tolerance" not in first
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()


def test_more_images_than_there_are_is_all_of_them():
    text = TEXT[: TEXT.index('[[trials]]\nname = "PGD, all')].replace("[vote]\nvotes = 5\n", "")
    plan = Plan(read_evaluation(text, {"clean": 10**6, "calibration": 10**6}))
    with pytest.warns(
        OdefendWarning, match="1,000,000 asked for, 200 taken: the validation split of digits has no more"
    ):
        calibration = plan.calibration()
    with pytest.warns(OdefendWarning, match="1,000,000 asked for, 500 taken: the test split of digits has no more"):
        judgements = plan.judgements({}, 0.0)
    count = {unit.images.split: unit.images.stop for unit in (*judgements, *calibration)}
    assert count["validation"] == 200
    assert max(unit.images.stop for unit in judgements) == 500


def test_names_with_signs_do_no_harm(rows, tmp_path, capsys):
    """In HTML, SVG, LaTeX, the terminal's markup, and matplotlib's mathematics."""
    wild = 'P<G>D & "[/all]" {x}_% $\\frac{$'
    trials = tuple(
        one.model_copy(update={"name": wild}) if one.name == "PGD" else one for one in rows.evaluation.trials
    )
    changed = about(
        rows,
        evaluation=rows.evaluation.model_copy(update={"trials": trials}),
        crafted=rows.crafted.with_columns(pl.col("trial").replace("PGD", wild)),
    )
    page = evaluation_page.write(changed, tmp_path).read_text()
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        ET.fromstring(svg)
    assert "<G>" not in page
    assert "$\\frac{$" in page
    show(*evaluation_page.summary(changed))
    assert "[/all]" in capsys.readouterr().out


def test_where_no_image_was_attacked_or_right_before_there_is_a_report_all_the_same(rows, tmp_path):
    nothing_yet = about(
        rows, **{name: getattr(rows, name).clear() for name in ("crafted", "judged", "scored", "traced")}
    )
    assert "no data" not in " ".join(evaluation_page.lessons(nothing_yet))
    assert evaluation_page.write(nothing_yet, tmp_path).exists()
    changed = about(rows, crafted=rows.crafted.with_columns(initially_wrong=pl.lit(True), success=False))
    page = evaluation_page.write(changed, tmp_path).read_text()
    assert "nothing to say" in page and evaluation_page.lessons(changed) == evaluation_page.lessons(nothing_yet)
    assert "no image was right before" in figures.convergence(changed.crafted)


def test_foreign_files_beside_a_report_do_no_harm(tmp_path):
    (tmp_path / "mine.json").write_text('{"settings": {"evaluation": {}}}')
    (tmp_path / "latin.json").write_bytes(b'{"evaluation": "caf\xe9"}')
    (tmp_path / "utf-16.json").write_text("{}", encoding="utf-16")
    (tmp_path / "folder.json").mkdir()
    assert evaluations_in(tmp_path) == ["latin", "mine"]
    with pytest.raises(OutputError, match=r"latin\.json: missing or damaged"):
        opened(tmp_path, "latin")


def test_names_that_cannot_be_printed_are_refused():
    with pytest.raises(InvalidInput, match="characters that can be printed"):
        read_evaluation(TEXT.replace('name = "C&W"', 'name = "C\\u001b[2J"'))


def test_tables_for_other_programs(rows):
    table = evaluation_page.summary(rows)[0]
    assert table.csv.splitlines()[0].startswith("net,clean accuracy") and len(table.csv.splitlines()) == 3
    assert table.markdown.splitlines()[1] == "| " + " | ".join(["---"] * len(table.columns)) + " |"
    assert r"\toprule" in table.latex and r" \% [" in table.latex and r"C\&W" in table.latex
    asked = Table("Won back?", ("C&W",), (("a\nb | c",),), "C&W made at .001.")
    assert r"\caption{Won back? C\&W made" in asked.latex and "| a b \\| c |" in asked.markdown
    assert r"a b | c \\" in asked.latex and r"caption{Won back. C" in replace(asked, title="Won back").latex


def test_no_cell_of_a_csv_is_a_formula():
    """A name may be one; numbers stay numbers."""
    wild = ("=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", "\t=1")
    tame = ("-", "-0.5", "+3.1 [+1.0, +5.2]", "-1e-05", "97.4 % [95.6, 98.5]", "C&W", "")
    cells = next(csv.reader([Table("t", wild + tame, (), "").csv]))
    assert cells == [f"'{cell}" for cell in wild] + list(tame)


def test_a_verdict_waits_for_all_doubts_to_clear(rows):
    args = (rows.crafted, "digits-oon", 0.1, rows.judged, GRID)
    cleared = [replace(doubt, verdict="clear") for doubt in doubts(rows, "digits-oon")]
    red, unknown = ([*cleared[:-1], replace(cleared[-1], verdict=verdict)] for verdict in ("red", "unknown"))
    assert "no sign of a weak attack" in findings.verdict(cleared, *args)
    for open_ in (red, unknown):
        assert "Nothing here supports a claim of security" in findings.verdict(open_, *args)
    assert not any("robust" in findings.verdict(which, *args) for which in (cleared, red, unknown))


def test_findings_take_the_side_that_the_rows_take(rows):
    judged = rows.judged.with_columns(
        correct=pl.when(pl.col("defense") == "noise").then(False).otherwise(pl.col("rtol") != 1e-3)
    )

    def told(judged):
        return findings.against_noise(judged, "digits-oon", rows.doses, "C&W", 1e-3)

    assert "significantly more than either noise at 1e-06, 1e-05" in told(judged)
    better, weak = told(judged).split("either noise at ")[1].split(". At ")
    assert "10" not in better.split(", ") and "10 noise that changes clean images as much" in weak, (
        "its control is too weak"
    )
    assert "At no tolerance more than noise of its dose" in told(
        judged.with_columns(correct=pl.col("defense") == "noise")
    )
    assert "cannot tell the tolerance from noise" in told(judged.with_columns(correct=pl.lit(True)))


def test_noise_is_matched_on_calibration_images_only(rows):
    calibration = rows.judged.filter(pl.col("experiment") == "doses")
    assert calibration["split"].unique().to_list() == ["validation"]
    tested = rows.judged.filter(pl.col("split") == "test")
    assert set(calibration["image"]) & set(tested["image"]) == set()
    held_out = rows.scored.filter(pl.col("kind") == "calibration")["image"]
    assert set(held_out) == set(calibration["image"]), "thresholds are set on the same held-out images"
    assert set(rows.scored.filter(pl.col("kind") != "calibration")["image"]) <= set(tested["image"])


def test_votes_see_clean_and_attacked_images_under_the_same_draws(rows):
    ballots = rows.judged.filter((pl.col("experiment") == "tolerance vote") & (pl.col("scale") == 1.0))
    pairs = ballots.filter((pl.col("kind") == "clean") & (pl.col("split") == "test")).join(
        ballots.filter(pl.col("kind") == "adversarial"), on=["image", "draw"], suffix="_adv"
    )
    assert pairs.height == 10 * 5 and (pairs["rtol"] == pairs["rtol_adv"]).all()


def test_a_folder_of_another_evaluation_is_refused(folder, monkeypatch):
    with pytest.raises(OutputError, match=r"other settings \(images\)"):
        evaluate(read_evaluation(TEXT, {"images": 9}), folder, Silent(), workers=1)
    monkeypatch.setattr(sys.modules["odefend.evaluation.evaluate"], "code_version", lambda: "0.1.0+other")
    with pytest.raises(OutputError, match=r"by odefend 0\.1\.0\+[0-9a-f]{8}, and this is 0\.1\.0\+other"):
        evaluate(SMOKE, folder, Silent(), workers=1)


def test_a_title_and_printed_numbers_may_be_mended(folder, rows):
    mended = read_evaluation(TEXT.replace("success = [0.375]", "success = [0.5]"), {"title": "Mended"})
    evaluate(mended, folder, Silent(), workers=1)
    again = Rows.read(*opened(folder, "smoke"))
    assert again.crafted.equals(rows.crafted) and published_table(again).rows[0][4] == "50.0 %"
    evaluate(SMOKE, folder, Silent(), workers=1)


def test_rows_of_two_codes_are_not_counted_together(folder, rows, tmp_path):
    """Each image would count twice: as after a merge of what two versions made under one name."""
    ledger = Ledger(tmp_path)
    ledger.merge(rows.ledger)
    one = rows.ledger.rows("crafted").filter(pl.col("key") == rows.crafted["key"][0])
    other = {name: one[name].to_list() for name in one.columns if name not in ("key", "schema_version")}
    ledger.write("crafted", "e15e" * 5, other | {"code_version": "0.1.0+other"})
    ledger.label([("crafted", "e15e" * 5, "smoke", "minimum norm", "C&W")])
    with pytest.raises(OutputError, match=r"expected rows of one code for smoke, found those of .*0\.1\.0\+other"):
        Rows.read(rows.evaluation, ledger)


def test_a_stopped_evaluation_has_a_report_that_says_so(rows, tmp_path):
    """With whatever has come so far, down to nothing."""
    for come in (rows.crafted.height, 10, 0):
        nothing = {name: getattr(rows, name).head(0) for name in ("judged", "scored", "traced")}
        part = about(rows, crafted=rows.crafted.head(come), finished=False, **nothing)
        assert "is not finished" in evaluation_page.write(part, tmp_path).read_text()


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / "smoke.json").write_text("rubbish")
    with pytest.raises(OutputError, match=r"smoke\.json: missing or damaged"):
        opened(tmp_path, "smoke")


def test_the_worst_case_counts_every_attack_at_the_tested_tolerance(rows):
    """Mark one attack as breaking everything at 0.1: the worst case there is 0, and elsewhere what it was."""
    made = rows.crafted.with_columns(
        success=pl.when(pl.col("trial") == "gradients of the loose solve").then(True).otherwise("success")
    )
    args = (rows.judged, "digits-oon")
    assert robustness.worst_case(made, *args, 0.1, 0.1).value == 0
    assert robustness.worst_case(made, *args, 10.0, 0.1) == robustness.worst_case(rows.crafted, *args, 10.0, 0.1)


def test_a_curve_is_drawn_before_the_control_was_attacked(rows):
    made = rows.crafted.filter((pl.col("trial") == "PGD") & (pl.col("net") == "digits-oon"))
    assert "digits-oon" in (drawn := figures.epsilon_curve(made, ["digits-oon", "digits-res"], "PGD"))
    assert "digits-res" not in drawn


def more(rows, others):
    """Rows, and others of the same columns."""
    return pl.concat([rows, others.cast(dict(rows.schema))])


def test_one_shard_with_two_labels_is_counted_for_each(rows):
    """The doubts count a gradient once, however many trials an image serves."""
    doubled = about(rows, crafted=more(rows.crafted, rows.crafted.with_columns(trial=pl.lit("again"))))
    told = [
        next(doubt for doubt in doubts(which, "digits-oon") if "gradients zero" in doubt.question)
        for which in (rows, doubled)
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("change", "told", "kind"),
    [
        (("images = 10", "imagse = 10"), "Did you mean 'images'", UnknownName),
        (("images = 10", "images = 0"), "images: input should be greater than or equal to 1; got 0", InvalidInput),
        (("images = 10\n", ""), "images: expected this key", InvalidInput),
        (('data = "digits"', 'data = "digit"'), "Did you mean 'digits'", UnknownName),
        (('attack = "carlini-wagner"', 'attack = "carlini-wagnr"'), "Did you mean 'carlini-wagner'", UnknownName),
        (("settings = { steps = 4 }", "settings = { step = 4 }"), "Did you mean 'steps'", UnknownName),
        (('beside = "PGD, all steps"', 'beside = "PGD, all step"'), "Did you mean 'PGD, all steps'", UnknownName),
        (('name = "PGD"', 'name = "C&W"'), "'C&W' twice", InvalidInput),
        (('control = "digits-res"\n', ""), "expected a control", InvalidInput),
        (("source = { tolerance", "source = { tolerence"), "Did you mean 'tolerance'", UnknownName),
        (("source = { tolerance = 1e-5", 'source = { method = "rk5"'), "unknown method 'rk5'", UnknownName),
        (
            ("source = { tolerance = 1e-5", 'source = { method = "rk4"'),
            "source: step: expected a positive",
            InvalidInput,
        ),
        (
            ("source = { tolerance = 1e-5", "source = { adjoint_tolerance = 1e-5"),
            'expected gradient = "adjoint"',
            InvalidInput,
        ),
        (("[vote]", "[vote"), "expected a TOML file", InvalidInput),
        (("1e-5, 1e-3,", "1e-5,"), "expected tolerances that are judged at, got [0.001]", InvalidInput),
        (('judged = "matrix"', 'judged = "everywhere"'), "got one in a ball", InvalidInput),
        (("at = [1e-3, 1e-1, 10.0]", "at = [1e-3]"), "two tolerances attacked or more", InvalidInput),
        (("epsilon = 0.1\n", "epsilon = 0.2\n"), "epsilon: expected the radius of PGD, all steps, 0.1", InvalidInput),
        (("calibration = 20", "calibration = 18"), "at least 19 calibration images", InvalidInput),
        (("votes = 5", "votes = 5\nscales = [1.0, 3.0]"), "vote: scales: expected 1.0 and others of", InvalidInput),
        (("votes = 5", "votes = 5\nlow = 1e-4\nhigh = 2e-3"), "to match its dose", InvalidInput),
        (("[vote]", "noise = false\n[vote]"), "expected noise beside it", InvalidInput),
        (("settings = { steps = 4 }", "settings = { target = 3 }"), "target: expected none", InvalidInput),
        (('data = "digits"', 'data = "folder"'), "expected a data set without options", InvalidInput),
        (("epsilon = [0.1, 0.3, 1.0]\n", ""), "missing 'epsilon'", InvalidInput),
        (("shard = 10", "shard = 10\nscales = [1.1]"), "scales: expected 1.0 among them", InvalidInput),
        (
            ("at = [1e-1]\nsource", "at = [1.0]\nsource"),
            "expected radii and tolerances that PGD, all steps has",
            InvalidInput,
        ),
        (
            ('beside = "PGD, all steps"', 'beside = "gradients of the loose solve"'),
            "expected another trial",
            InvalidInput,
        ),
        (
            ("source = { tolerance", 'gradient = "exact"\nsource = { tolerance'),
            "expected none beside a source",
            InvalidInput,
        ),
    ],
)
def test_a_wrong_file_is_explained(change, told, kind):
    assert change[0] in TEXT
    with pytest.raises(kind, match=re.escape(told)):
        read_evaluation(TEXT.replace(change[0], change[1], 1))


@pytest.mark.parametrize(
    "file",
    [file for file in sorted(EXAMPLES.glob("*.toml")) if not holds_experiment(file)],
    ids=lambda file: file.stem,
)
def test_the_examples_run(file, tmp_path, request, monkeypatch):
    """At smoke size, with every search cut short."""
    evaluation = read_evaluation(file)
    if evaluation.data != "digits":
        monkeypatch.setenv("ODEFEND_DATA", str(request.getfixturevalue("real_data")))
    short = {
        "carlini-wagner": {"steps": 3, "binary_search_steps": 1},
        "carrara-mnist": {"steps": 2, "binary_search_steps": 1},
    }
    trials = [
        one.model_dump()
        | {
            "settings": one.settings | short.get(one.attack, {"steps": 2}),
            "epsilon": [evaluation.epsilon] if one.epsilon else [],
        }
        for one in evaluation.trials
    ]
    sizes = {"images": 2, "clean": 2, "calibration": 20, "tolerances": [1e-3, 1e-2, 1.0], "published": []}
    small = read_evaluation(file, {**sizes, "trials": trials})
    ledger = evaluate(small, tmp_path, Silent(), workers=1)
    assert evaluation_page.write(Rows.read(small, ledger), tmp_path).read_text().count("<table") > 0


def test_radii_of_two_norms_are_not_mixed(rows):
    """An attack of the same radius in another norm, which breaks everything, changes no sentence about this one."""
    other = rows.made("PGD", epsilon=0.1).with_columns(norm=pl.lit("rms"), success=pl.lit(True), trial=pl.lit("RMS"))
    both = about(rows, crafted=more(rows.crafted, other))
    assert both.balls.equals(rows.balls)
    assert evaluation_page.lessons(both)[0] == evaluation_page.lessons(rows)[0]


def test_ways_of_states_are_those_of_the_net(rows, oon, test_digits):
    """At the end, ReLU(GN(h)) and h itself are as far apart as the net has them; at the start, as its stem has them."""
    row = rows.traced.filter((pl.col("rtol") == 1e-3) & (pl.col("image") == test_digits.ids[3])).row(0, named=True)
    assert (row["time"][0], row["time"][-1], len(row["raw"])) == (0.0, 1.0, 51)
    made = rows.crafted.filter((pl.col("key") == row["crafted"]) & (pl.col("image") == row["image"])).row(0, named=True)
    both = torch.stack([test_digits.images[3], rows.ledger.read_images(row["crafted"])[made["position"]]])
    with torch.no_grad():
        start, end = oon.stem(both), oon.trajectory(both).y
        coded = oon.head[:2](end)
    assert row["raw"][0] == pytest.approx((start[0] - start[1]).norm().item(), rel=1e-4)
    assert row["raw"][-1] == pytest.approx((end[0] - end[1]).norm().item(), rel=1e-4)
    assert row["coded"][-1] == pytest.approx((coded[0] - coded[1]).norm().item(), rel=1e-4)
    angle = torch.nn.functional.cosine_similarity(end[0].flatten(), end[1].flatten(), dim=0)
    assert row["cosine"][-1] == pytest.approx(1 - angle.item(), abs=1e-5)
