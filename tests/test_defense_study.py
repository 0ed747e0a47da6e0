"""The study of the defenses at smoke size: points are tuned, attackers know what they face, and tables are made of rows."""

import json
from dataclasses import replace

import polars as pl
import pytest

from odefend.attacks import CarliniWagner
from odefend.errors import OutputError
from odefend.evaluation import Defended, Ledger
from odefend.evaluation.adaptive import Adaptive
from odefend.progress import Silent
from odefend.studies import defenses, defenses_report
from odefend.studies.defenses import Subject

pytestmark = pytest.mark.xdist_group("defense study")

SMOKE = defenses.Setup(
    "digits-oon",
    "digits-res",
    "digits",
    ("tolerance", "input-noise"),
    images=12,
    nearest=6,
    adaptive=Adaptive(0.1, steps=1, few=2, many=3),
    search=CarliniWagner(steps=10, binary_search_steps=1, learning_rate=0.1, initial_constant=20.0),
    draws=3,
    votes=2,
    loss=0.2,
    tuned=(24, 8, 6),
    scales=(1.0, 1.5),
    shard=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("defenses")
    with pytest.MonkeyPatch.context() as patched:
        few = {"tolerance": ({"tolerance": 0.1}, {"tolerance": 10.0}), "input-noise": ({"sigma": 0.05}, {"sigma": 0.1})}
        patched.setattr("odefend.evaluation.tuning.CANDIDATES", few)
        defenses.measure(folder, SMOKE, Silent(), 1)
        yield folder


@pytest.fixture(scope="module")
def rows(folder):
    return defenses_report.Rows.of(Ledger(folder), SMOKE.name)


@pytest.fixture(scope="module")
def tried(folder):
    return defenses.subjects(SMOKE, defenses.points(folder, SMOKE))


def test_every_defense_has_a_point_and_noise_beside_it(tried):
    assert [one.label for one in tried] == [
        "tolerance",
        "input-noise",
        "input-noise, averaged",
        "input-noise, majority-vote",
    ]
    assert tried[0].partner is not None and tried[0].partner.name == "input-noise" and tried[1].partner is None
    assert tried[2].base == tried[1].defense == tried[3].base and json.loads(tried[2].defense.settings)["draws"] == 2


def test_noise_beside_a_vote_costs_as_much():
    point = Defended("random-tolerance", '{"distribution":{"high":0.1,"low":1e-05}}')
    single, averaged, voted = defenses.subjects(SMOKE, [(point, 0.055)])
    assert single.partner is not None and json.loads(single.partner.settings) == {"sigma": 0.05}
    for one, how in ((averaged, "averaged"), (voted, "majority-vote")):
        assert one.defense.name == how and one.partner is not None and one.partner.name == how
        assert json.loads(one.partner.settings) == {"defense": {"name": "input-noise", "sigma": 0.05}, "draws": 2}
        assert one.base == point and Subject("", one.partner, None).base == single.partner
    assert single.pairs == [(point, point), (single.partner, single.partner)]
    assert averaged.pairs == [(averaged.defense, point), (averaged.partner, single.partner)]


def test_every_defense_and_its_noise_meet_the_same_attacks_on_the_same_images(rows, tried):
    """As many runs of as many steps, and the bare net too: what differs is whose gradients, and along how many draws."""
    met = {}
    for settings in (None, *(one.text for subject in tried for one, _ in subject.pairs)):
        shown = rows.of_defense(settings).filter(pl.col("experiment").is_in(defenses_report.IN_BALL))
        met[settings] = set(shown.select("image", "experiment", "scale").rows())
    assert len(met) > 4 and all(one == met[None] for one in met.values())
    assert len(met[None]) == SMOKE.images * len(defenses_report.IN_BALL)


def test_rows_are_compared_on_the_images_that_met_all_attacks():
    """Before four images, two of which met more draws: all cells of all rows are of these two."""
    point, noise = Defended("tolerance", '{"tolerance":1.0}'), Defended("input-noise", '{"sigma":0.1}')
    told = {
        None: {"clean": (1, 1, 1, 1), "plain": (1, 0, 0, 0), "transferred": (1, 1, 1, 1), "white-box": (1, 1, 1, 1)},
        point.text: {"clean": (1, 1, 1, 1), "plain": (1, 1, 0, 0), "transferred": (1,) * 4, "white-box": (0, 1, 1, 1)},
        noise.text: {"clean": (1, 1, 1, 1), "plain": (1, 1, 1, 1), "transferred": (1,) * 4, "more draws": (1, 0)},
    }
    judged = [
        pl.DataFrame(
            {
                "settings": pl.Series([settings] * len(right), dtype=pl.String),
                "experiment": experiment,
                "image": [f"mnist/test/{i:05d}" for i in range(len(right))],
                "correct": list(map(bool, right)),
                "true_margin": 1.0,
                "scale": 1.0,
                "draw": 0,
                "crafted": experiment,
            }
        )
        for settings, some in told.items()
        for experiment, right in some.items()
    ]
    how = {"steps": 2, "step_size": None, "epsilon": 0.1, "restarts": 1, "loss": "margin"}
    columns = {"experiment": "white-box", "epsilon": 0.1, "settings": json.dumps(how), "source_draws": 3}
    rows = defenses_report.Rows(pl.DataFrame(columns), pl.concat(judged))
    table = defenses_report.in_ball(rows, SMOKE, [Subject("tolerance", point, noise)])
    bare, cells = ([cell.split(" [")[0] for cell in row] for row in table.rows)
    assert bare[2:7] == ["100.0 %", "50.0 %", "100.0 %", "100.0 %", "50.0 %"]
    assert cells[2:8] == ["100.0 %", "100.0 %", "100.0 %", "50.0 %", "50.0 %", "+0.0"]
    assert cells[9:] == ["100.0 %", "50.0 %", "+0.0"]
    assert (
        "Right, of the first 2 test images" in table.note
        and "2 steps of 1.25 radii on margin along 3 draws" in table.note
    )


def test_accuracy_by_hand(rows, tried):
    """Of a random defense, for each draw the attack is chosen by the other two."""
    settings = tried[1].defense.text
    shown = rows.of_defense(settings).filter(pl.col("experiment").is_in(defenses_report.IN_BALL))
    left = dict(rows.under(settings, *defenses_report.IN_BALL).rows())
    assert len(left) == SMOKE.images and shown["draw"].n_unique() == 3
    for image, right in left.items():
        mine, found = shown.filter(pl.col("image") == image), []
        for draw in range(3):
            others = (
                mine.filter(pl.col("draw") != draw)
                .group_by("crafted")
                .agg(pl.col("correct").sum(), pl.col("true_margin").sum())
            )
            best = min(others.rows(), key=lambda one: (one[1], one[2], one[0]))[0]
            found.append(mine.filter((pl.col("draw") == draw) & (pl.col("crafted") == best))["correct"].item())
        assert right == pytest.approx(sum(found) / 3)
    single = rows.under(settings, "plain")
    each = (
        rows.of_defense(settings)
        .filter(pl.col("experiment") == "plain")
        .group_by("image")
        .agg(pl.col("correct").mean())
    )
    assert dict(single.rows()) == pytest.approx(dict(each.rows())), "of one attack nothing is chosen"


def test_the_tables(rows, tried, folder):
    ball, far, more = defenses_report.summary(rows, SMOKE, tried)
    assert [row[0] for row in more.rows] == [one.label for one in tried[1:]]
    assert [row[0] for row in ball.rows] == ["none", *(one.label for one in tried)] == [row[0] for row in far.rows]
    assert "[" in ball.rows[1][-1] and ball.rows[0][-1] == "" and "[" in far.rows[1][-1]
    assert "12 test images, each of which met every attack in an L-inf ball of 0.1" in ball.note
    assert "along 1 draw; 1 steps of 0.5 radii on cross-entropy along 2 draws; 1 steps of 0.5" in ball.note
    everything = defenses_report.Rows.of(Ledger(folder))
    assert defenses_report.summary(everything, SMOKE, tried) == [ball, far, more], "what tuning did is left out"


def test_a_second_run_does_nothing_again(folder):
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    defenses.measure(folder, SMOKE, Silent(), 1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == times


def test_points_that_are_lost_are_named(folder, tmp_path):
    with pytest.raises(OutputError, match=r"tolerance\.json: missing or damaged"):
        defenses.points(tmp_path, SMOKE)
    with pytest.raises(OutputError, match=r"bit-depth\.json"):
        defenses.points(folder, replace(SMOKE, defenses=("tolerance", "bit-depth")))
