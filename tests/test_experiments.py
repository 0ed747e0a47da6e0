"""Experiments: the language, its expansion, running it, and the tables, figures and claims that come of it."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import polars as pl
import pytest

from odefend.cli.experiment import run_report
from odefend.engine import Craft, Predict, Score
from odefend.errors import InvalidInput, OutputError, UnknownName
from odefend.experiments import Expansion, limited, read_experiment, run
from odefend.experiments.parts import ClaimPart
from odefend.intervals import Interval
from odefend.metrics import METRICS, Rows
from odefend.progress import Silent
from odefend.report.claims import judge
from odefend.report.drawn import figure
from odefend.report.experiment_page import Report, merged
from odefend.report.filled import table

TOML = """
name = "trial"
shard = 8
[data.test]
set = "digits"
count = 12
sample = 0
[data.calibration]
set = "digits"
split = "validation"
count = 24
[models.ode]
net = "digits-oon"
tolerance = [1e-3, 1e-1]
[models.trained]
net = "digits-oon"
[models.res]
net = "digits-res"
[models.random]
net = "digits-oon"
defense = { name = "random-tolerance" }
[models.noisy]
net = "digits-oon"
defense = { name = "input-noise", sigma = [0.02, 0.3] }
[models.matched]
net = "digits-oon"
defense = { name = "input-noise", sigma = "$dose" }
[detectors.margin]
detector = "one-pass-margin"
model = "trained"
[detectors."noise, 0.1"]
detector = "noise-drop"
settings = { sigma = 0.1, draws = 2 }
model = "trained"
[attacks.fgsm]
attack = "fgsm"
epsilon = [0.1, 0.2]
on = ["ode", "res"]
[attacks.bim]
attack = "bim"
settings = { steps = 3 }
epsilon = 0.1
on = "trained"
source = { tolerance = 1e-5 }
[attacks.drawn]
attack = "fgsm"
epsilon = 0.2
on = "random"
draws = 2
role = "adaptive"
[attacks.past]
attack = "pgd"
settings = { steps = 2 }
epsilon = 0.2
on = "trained"
knowing = ["margin", "noise, 0.1"]
alarms = [0.05, 0.2]
role = "adaptive"
[measures.clean]
measure = "predict"
models = ["ode", "res", "random"]
draws = 2
[measures.doses]
measure = "predict"
models = ["ode", "noisy"]
data = "calibration"
[measures.judged]
measure = "predict"
models = ["ode", "res", "matched", "random"]
images = ["fgsm", "drawn"]
scales = [1.0, 1.5]
draws = 4
[measures.scores]
measure = "score"
images = ["clean", "fgsm"]
[derived.dose]
value = "matched-noise"
of = "doses"
settings = { reference = 1e-3 }
[[tables]]
title = "FGSM by tolerance"
rows = ["model", "tolerance"]
where = { model = ["ode", "res"], epsilon = 0.1 }
source = "a paper"
published = { success = [0.5, 0.25, 1.0] }
columns = [
  { head = "error", metric = "error", measure = "clean" },
  { head = "success", metric = "success", attack = "fgsm" },
  { head = "minus that on the ResNet", metric = "success", attack = "fgsm", minus = { model = "res", tolerance = [] } },
]
[[figures]]
title = "Recovery by scale"
x = "scale"
y = "recovered"
where = { attack = "fgsm", epsilon = 0.2, measure = "judged" }
lines = [ { label = "noise", metric = "recovered", model = "matched" } ]
[[claims]]
sentence = "A larger ball is left by more images."
left = { metric = "success", attack = "fgsm", epsilon = 0.2, model = "ode" }
relation = ">"
right = { metric = "success", attack = "fgsm", epsilon = 0.1, model = "ode" }
"""


LEVELS = {0.05: (1.0, 1.0), 0.2: (1.0, 1.0)}
KNOWN = {"dose": [0.05], "margin-threshold": LEVELS, "noise, 0.1-threshold": LEVELS}


@pytest.fixture(scope="module")
def experiment():
    return read_experiment(TOML.replace(", tolerance = []", ""))


@pytest.fixture(scope="module")
def rows(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial")
    ledger = run(experiment, folder, Silent(), workers=1)
    return Rows.read(ledger, "trial"), ledger, folder


def test_lists_expand_to_grids(experiment):
    expansion = Expansion(experiment)
    assert [spec.tolerance for spec in expansion.models("ode")] == [1e-3, 1e-1]
    assert [spec.tolerance for spec in expansion.models("res")] == [None]
    assert [spec.sigma for spec in (model.defense for model in expansion.models("noisy"))] == [0.02, 0.3]
    crafts = [task.unit for task in expansion.crafts("fgsm")]
    assert len(crafts) == 3 * 2 * 2  # models x radii x pieces of 8 and 4 images
    assert {craft.attack.budget for craft in crafts if isinstance(craft, Craft)} == {0.1, 0.2}


def test_what_needs_a_derived_value_waits_for_it(experiment):
    first, then = (
        Expansion(experiment),
        Expansion(
            experiment,
            {
                "dose": [0.05],
                "margin-threshold": {0.05: (1, 1), 0.2: (1, 1)},
                "noise, 0.1-threshold": {0.05: (1, 1), 0.2: (1, 1)},
            },
        ),
    )
    tasks = first.tasks()
    assert {"clean", "doses", "scores"} <= {task.label.measure for task in tasks}
    assert "matched" not in {task.label.model for task in tasks}
    assert not first.complete("judged") and first.complete("doses")
    assert set(first.missing.values()) == {"dose", "margin-threshold"}
    assert {"judged", "craft"} <= {task.label.measure for task in then.tasks()} and not then.missing


def test_a_model_judges_its_own_images_and_a_bystander_everybodys(experiment):
    expansion = Expansion(
        experiment,
        {
            "dose": [0.05],
            "margin-threshold": {0.05: (1, 1), 0.2: (1, 1)},
            "noise, 0.1-threshold": {0.05: (1, 1), 0.2: (1, 1)},
        },
    )
    seen = [(task.label.model, task.unit) for task in expansion.measured("judged") if isinstance(task.unit, Predict)]
    own = [unit for model, unit in seen if model == "ode" and unit.crafted]
    assert all(unit.crafted.model == unit.model for unit in own if unit.crafted and unit.crafted.model.defense is None)
    matched = {unit.crafted.model.net for model, unit in seen if model == "matched" and unit.crafted}
    assert matched == {"digits-oon", "digits-res"}


def test_a_random_model_is_attacked_over_its_attackers_draws(experiment):
    (task, *_) = Expansion(experiment).crafts("drawn")
    assert isinstance(task.unit, Craft)
    assert task.unit.model.draws == 2 and task.label.role == "adaptive"


def test_attacks_that_know_a_detector_have_its_threshold(rows):
    _, ledger, _ = rows
    made = ledger.read("crafted", "trial").filter(attack="past")
    assert sorted(made["alarms"].unique()) == [0.05, 0.2]
    assert sorted(made["past"].unique()) == ["margin", "noise, 0.1"] and made["guard"].null_count() == 0


def test_an_attack_knows_the_detectors_beside_the_model_that_it_attacks(experiment):
    both = read_experiment(
        TOML.replace(", tolerance = []", "").replace(
            'on = "trained"\nknowing = ["margin", "noise, 0.1"]',
            'on = ["trained", "res"]\nknowing = ["margin", "beside res"]',
        )
        + '[detectors."beside res"]\ndetector = "one-pass-margin"\nmodel = "res"\n'
    )
    known = {"margin-threshold": LEVELS, "beside res-threshold": LEVELS}
    labels = [task.label for task in Expansion(both, known).crafts("past")]
    assert {(one.model, one.past) for one in labels} == {("trained", "margin"), ("res", "beside res")}


def test_what_solves_nothing_is_not_attacked_along_other_solves(experiment):
    text = TOML.replace(", tolerance = []", "").replace('on = "trained"\nsource', 'on = ["trained", "res"]\nsource')
    assert {task.label.model for task in Expansion(read_experiment(text)).crafts("bim")} == {"trained"}


def test_nothing_is_done_twice(experiment, rows):
    found, _, folder = rows
    again = Rows.read(run(experiment, folder, Silent(), workers=1), "trial")
    assert again.crafted.equals(found.crafted) and again.judged.equals(found.judged)


def test_two_workers_make_the_rows_of_one(experiment, rows, tmp_path):
    found, *_ = rows
    small = limited(experiment, 5).model_copy(update={"shard": 3})
    alone, together = (run(small, tmp_path / str(n), Silent(), workers=n) for n in (1, 2))
    for name in ("crafted", "judged", "scored"):
        assert alone.read(name).equals(together.read(name)), name
    assert found.judged.height > alone.read("judged").height


def test_another_experiment_of_the_name_is_refused(experiment, rows):
    _, _, folder = rows
    with pytest.raises(OutputError, match="other settings"):
        run(limited(experiment, 3), folder, Silent(), workers=1)


def test_a_table_has_published_numbers_beside_measured_ones(experiment, rows):
    found = table(experiment.tables[0], rows[0], experiment)
    assert found.columns[:5] == ("model", "tolerance", "error", "success, published", "success")
    assert [row[:2] for row in found.rows] == [("ode", "0.001"), ("ode", "0.1"), ("res", "-")]
    assert [row[3] for row in found.rows] == ["0.5", "0.25", "1"]
    success = METRICS["success"].of(
        rows[0].where({"model": "ode", "tolerance": 1e-3, "epsilon": 0.1, "attack": "fgsm"})
    )
    assert found.rows[0][4] == success.percent and found.numbers[0]["success"] == vars(success)


def test_a_figure_is_drawn_over_its_axis(experiment, rows):
    assert "Recovery by scale" in figure(experiment.figures[0], rows[0])


def test_who_gets_past_at_any_scale_got_past(rows):
    found = rows[0].where({"attack": "fgsm", "detector": "margin"})
    accepted = found.scored.filter(kind="adversarial").with_columns(score=-1e9)
    refused = accepted.with_columns(score=1e9, scale=2.0)
    for order in ((accepted, refused), (refused, accepted)):
        scored = pl.concat([found.scored.filter(kind="calibration"), *order])
        both = replace(found, scored=scored)
        broken = found.crafted.filter(pl.col("success") & ~pl.col("initially_wrong"))
        hits = broken.join(accepted, left_on=["key", "image"], right_on=["crafted", "image"], how="semi")
        evasion = METRICS["evasion"].of(both)
        assert evasion.value * evasion.n == hits["image"].n_unique() > 0
    unseen = replace(found, scored=found.scored.filter(kind="calibration"))
    assert METRICS["evasion"].of(unseen).n == 0, "nothing is known of images that no detector was shown"


def test_the_report_has_tables_and_figures_as_files(experiment, rows):
    found, _, folder = rows
    page = Report(experiment, found, folder).write()
    assert "Recovery by scale" in page.read_text() and "A larger ball" in page.read_text()
    assert (folder / "trial-figures" / "1.svg").read_text().startswith("<svg")
    assert "success, published" in (folder / "trial-tables" / "1.csv").read_text()
    again = page.read_text()
    run_report(folder, None)
    assert page.read_text() == again


def test_the_report_is_one_self_contained_page(experiment, rows):
    found, _, folder = rows
    page = Report(experiment, found, folder).write().read_text()
    assert not re.search(r'(?:src|href)="(?!#|data:)', page), "nothing may be fetched"
    assert "<script" not in page and "@import" not in page and "url(http" not in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) == 3, "the figure, the gallery and the picture of the first screen"
    for svg in drawings:
        ET.fromstring(svg)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "figures must not share ids"
    for words in (
        "Who attacks, and how",
        "follows unrolled gradients of the solve at 1e-05",
        "Can the attacks be trusted?",
        "tolerance 0.1",
    ):
        assert words in page, words
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()


def test_the_first_screen_says_how_each_attacked_model_stands(experiment, rows):
    """By the same numbers as its rows, and with what is open: robust accuracy counts images that were wrong before as lost."""
    report = Report(experiment, rows[0], rows[2])
    standings = {one.model: one for one in report.headline.standings}
    assert set(standings) == {"ode, tolerance 0.001", "ode, tolerance 0.1", "res", "random"}
    assert {one.ball for one in report.headline.standings} == {"linf radius 0.2"}, "where most attacks were run"
    made = rows[0].crafted.filter(model="ode", epsilon=0.2, attack="fgsm").filter(pl.col("rtol") == 0.1)
    robust = (~made["success"] & ~made["initially_wrong"]).sum()
    assert standings["ode, tolerance 0.1"].robust.value == pytest.approx(robust / made.height)
    for one in report.headline.standings:
        assert one.passed + one.failed + one.unknown > 5 and one.unknown
    assert "Nothing here supports a claim of security" in report.headline.sentences[1]
    told = {one.model: one.told for one in report.headline.standings}
    checked = {(one.model, one.where): one for one in report.checks}
    assert told["res"].split()[0] == str(sum(one.outcome == "passed" for one in report.checks if one.model == "res"))
    assert any("past margin" in where for _, where in checked), "an attack past a detector is a model of its own"


def test_a_net_that_solves_nothing_has_no_evaluations_to_count(rows):
    """Neither a mean of 0, nor a row in a figure."""
    assert not METRICS["NFE"].of(rows[0].where({"model": "res", "measure": "clean"})).n
    assert METRICS["NFE"].of(rows[0].where({"model": "ode", "measure": "clean"})).value > 8


def test_checks_that_say_the_same_at_several_points_are_one_line(experiment, rows):
    report = Report(experiment, rows[0], rows[2])
    mine = [one for one in report.checks if one.model == "ode"]
    lines = merged(mine)
    assert len(lines) < len(mine) and {one.statement for one in lines} == {one.statement for one in mine}


def test_pictures_are_shown_where_they_are_and_not_made_up(experiment, rows, tmp_path):
    """Of the first attack; and none where the ledger has no images."""
    of, found = Report(experiment, rows[0], rows[2]).examples
    assert of.startswith("fgsm, radius 0.1") and found
    for one in found:
        assert abs(one.adversarial - one.clean).max() == pytest.approx(0.1, abs=1e-6)
    assert Report(experiment, rows[0], tmp_path).examples == ("", [])


def test_a_report_of_nothing_says_so(experiment, rows, tmp_path):
    nothing = rows[0].where({"model": "nobody"})
    page = Report(experiment, nothing, tmp_path).write().read_text()
    assert "No model has been attacked so far" in page


def test_other_rows_give_other_numbers(experiment, rows):
    found, _, folder = rows
    other = replace(
        found,
        crafted=found.crafted.with_columns(success=~pl.col("success")),
        judged=found.judged.with_columns(correct=~pl.col("correct")),
    )
    one, two = (Report(experiment, which, folder) for which in (found, other))
    assert one.headline.standings != two.headline.standings and one.checks != two.checks
    assert [part.rows for part in one.tables] != [part.rows for part in two.tables]
    assert one.figures != two.figures and one.claims != two.claims


def test_matched_noise_comes_from_calibration_rows(rows):
    noise = rows[0].judged.filter(model="matched")["sigma"].unique().to_list()
    assert len(noise) == 1 and 0 < noise[0] <= 0.3


CLAIM = ClaimPart(sentence="x", left={"metric": lambda _: LEFT}, relation=">", right=0.5)  # type: ignore[arg-type]
LEFT = Interval(0.6, 0.55, 0.65, 100)


@pytest.mark.parametrize(
    ("relation", "right", "margin", "outcome"),
    [
        (">", 0.5, 0.0, "confirmed"),
        (">", 0.58, 0.0, "cannot tell"),
        (">", 0.7, 0.0, "not confirmed"),
        ("<", 0.7, 0.0, "confirmed"),
        ("<", 0.5, 0.0, "not confirmed"),
        ("=", 0.6, 0.1, "confirmed"),
        ("=", 0.6, 0.04, "cannot tell"),
        ("=", 0.9, 0.1, "not confirmed"),
    ],
)
def test_a_claim_is_judged_by_intervals(rows, relation, right, margin, outcome):
    claim = CLAIM.model_copy(update={"relation": relation, "right": right, "margin": margin})
    assert judge(claim, rows[0]).outcome == outcome


def test_paired_sides_are_compared_image_by_image(experiment, rows):
    judged = judge(experiment.claims[0], rows[0])
    assert judged.difference.value == pytest.approx(judged.left.value - judged.right.value)
    assert judged.difference.n == judged.left.n


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (("count = 12", "cuont = 12"), UnknownName, "count"),
        (('on = "trained"\nsource', 'on = "traned"\nsource'), UnknownName, "trained"),
        (('knowing = ["margin", "noise, 0.1"]', 'knowing = "margins"'), UnknownName, "margin"),
        (('on = "trained"\nknowing', 'on = "res"\nknowing'), UnknownName, "model of detector margin"),
        (('of = "doses"', 'of = "dose"'), UnknownName, "doses"),
        (('attack = "bim"', 'attack = "bmi"'), UnknownName, "bim"),
        (("tolerance = [1e-3, 1e-1]", "tolerance = [1e-3, -1]"), InvalidInput, "tolerance"),
        (('name = "trial"', ""), InvalidInput, "name"),
        (("count = 12", 'count = "many"'), InvalidInput, "count"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, error, told):
    with pytest.raises(error, match=told):
        Expansion(read_experiment(TOML.replace(", tolerance = []", "").replace(*change))).tasks()


def test_scores_are_of_each_detector_beside_its_model(experiment):
    units = [task.unit for task in Expansion(experiment).measured("scores")]
    assert all(isinstance(unit, Score) and unit.model.net == "digits-oon" for unit in units)
