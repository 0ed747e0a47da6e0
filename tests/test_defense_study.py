"""The study of the defenses at smoke size: points are tuned, attackers know what they face, and tables are made of rows."""

import json
from dataclasses import replace

import polars as pl
import pytest

from odefend.attacks import PGD, CarliniWagner
from odefend.errors import OutputError
from odefend.evaluation import Craft, Defended, Ledger
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
    steps=2,
    search=CarliniWagner(steps=15, binary_search_steps=1, learning_rate=0.1, initial_constant=20.0),
    searched=2,
    draws=3,
    many=3,
    followed=6,
    leaps=2,
    votes=2,
    loss=0.2,
    tuned=(24, 8, 6, 2),
    scales=(1.0, 1.5, 2.0),
    shard=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("defenses")
    defenses.measure(folder, SMOKE, Silent(), 1)
    return folder


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


def test_attackers_know_what_they_face():
    """The draws of a random defense, but for those that judge; another loss; and that a gradient may lead nowhere."""
    noise, bits = Defended("input-noise", '{"sigma":0.1}'), Defended("input-transform", '{"tampering":"jpeg-75-444"}')
    for defense in (noise, bits):
        made, random = defenses.knowing(SMOKE, defense), defense == noise
        assert all(isinstance(one, Craft) and one.view.defense == defense for one in made)
        told = {(one.experiment, one.view.draws, one.source) for one in made}
        assert {("white-box", 1, None), ("adaptive, margin", 2, None), ("adaptive, bare", 2, SMOKE.view)} <= told
        assert (("adaptive", 2, None) in told) == (("more draws", 3, None) in told) == random
        balls = [one.attack for one in made if "nearest" not in one.experiment]
        assert all(isinstance(one, PGD) and one.early_stop != random for one in balls)
        leaps = [one.attack for one in made if one.experiment == "adaptive, leaps"]
        assert [isinstance(one, PGD) and (one.step_size, one.restarts) for one in leaps] == [(SMOKE.epsilon, 2)]
        assert {one.loss for one in balls if isinstance(one, PGD)} == {"cross-entropy", "margin"}
    told = {(one.experiment, one.view, one.source) for one in defenses.knowing(SMOKE, None)}
    assert told == {(f"adaptive, {how}", SMOKE.view, None) for how in ("margin", "leaps")}, (
        "and plain: of its own gradient"
    )
    quick = replace(SMOKE, margin=False)
    assert not any("margin" in one.experiment for one in defenses.knowing(quick, noise))


def test_success_by_hand(rows, tried):
    """Of one image under one attack: the share of draws that are fooled; of all: the mean over those that were attacked."""
    settings = tried[1].defense.text
    judged = rows.judged.filter(pl.col("settings") == settings)
    counted = {
        image
        for (image,), some in judged.filter(pl.col("experiment") == "clean").group_by("image")
        if some["correct"].sum() > 1.5
    }
    shares = dict(rows.fooled(settings, "adaptive").rows())
    shown = judged.filter(pl.col("experiment") == "adaptive")
    spared = set(shown.filter("initially_wrong")["image"])
    assert set(shares) == counted - spared and max(shares.values()) > 0
    for image, share in shares.items():
        some = shown.filter(pl.col("image") == image)
        assert share == pytest.approx((~some["correct"] & (some["status"] == 0)).sum() / 3) and some.height == 3
    cell = defenses_report.success(rows, SMOKE, tried).rows[2]
    worst = rows.worst(settings)["share"].to_numpy()
    assert cell[0] == "input-noise" and cell[7].startswith(f"{100 * worst.mean():.1f} %")
    more = [rows.fooled(settings, name) for name in ("plain", "adaptive", "more draws")]
    assert all(dict(rows.worst(settings).rows())[image] >= share for one in more for image, share in one.rows())


def test_the_worst_case_is_no_better_than_any_attack(rows, tried):
    for one in tried:
        settings = one.defense.text
        worst = rows.worst(settings)
        right = rows.right(settings)
        assert right.height == SMOKE.images and worst.height == (right["share"] > 0.5).sum()
        for name in defenses_report.IN_BALL:
            each = rows.fooled(settings, name).join(worst, on="image", suffix="_worst")
            assert (each["share"] <= each["share_worst"]).all()


def test_the_cells_of_a_defense_and_its_noise_by_hand():
    """Four images. Transferred fools none of the defense, plain one, white-box two, the bare net's gradient another one of them;
    the noise is fooled on one, and on another one by more draws, which were followed for the first two alone."""
    told = {
        "plain": (1, 0, 0, 0),
        "transferred": (0, 0, 0, 0),
        "white-box": (1, 1, 0, 0),
        "adaptive, bare": (0, 1, 0, 0),
    }
    noisy = {"plain": (1, 0, 0, 0), "transferred": (0,) * 4, "adaptive": (0, 0, 0, 1), "more draws": (0, 1)}
    point, noise = Defended("tolerance", '{"tolerance":1.0}'), Defended("input-noise", '{"sigma":0.1}')

    def shown(settings, experiment, broken):
        return pl.DataFrame(
            {
                "settings": pl.Series([settings] * len(broken), dtype=pl.String),
                "experiment": experiment,
                "image": list("abcd")[: len(broken)],
                "correct": [not one for one in broken],
                "status": 0,
                "scale": 1.0,
                "initially_wrong": False,
                "crafted": experiment,
            }
        )

    judged = [
        *(shown(one, "clean", (0,) * 4) for one in (None, point.text, noise.text)),
        *(shown(point.text, name, broken) for name, broken in told.items()),
        *(shown(noise.text, name, broken) for name, broken in noisy.items()),
    ]
    rows = defenses_report.Rows(pl.DataFrame(), pl.concat(judged))
    _, cells = defenses_report.success(rows, SMOKE, [Subject("tolerance", point, noise)]).rows
    shares = [cell.split(" [")[0] for cell in cells]
    assert shares[2:8] == ["100.0 %", "25.0 %", "0.0 %", "50.0 %", "25.0 %", "50.0 %"]
    assert shares[9:] == ["100.0 %", "75.0 %", "+0"], "difference: of the images a and b, both are fooled in either"


def test_evading_by_hand(rows):
    """The least length that fools most draws, over both searches and all scales."""
    settings = Defended("input-noise", '{"sigma":0.1}').text
    shown = sorted(
        name for name in rows.judged["settings"].drop_nulls().unique() if "input-noise" in name and "draws" not in name
    )
    settings = settings if settings in shown else str(shown[0])
    found = rows.evading(settings)
    for image, far in found.rows():
        best = float("inf")
        for made in rows.crafted.filter(
            (pl.col("image") == image) & pl.col("experiment").str.contains("nearest")
        ).to_dicts():
            seen = rows.judged.filter(
                (pl.col("image") == image) & (pl.col("settings") == settings) & (pl.col("crafted") == made["key"])
            )
            for (scale,), some in seen.group_by("scale"):
                wrong = (~some["correct"] & (some["status"] == 0)).mean()
                if wrong > 0.5 and made["l2"] > 0:
                    best = min(best, scale * made["l2"])
        assert far == pytest.approx(best)
    assert found.height and found["far"].is_finite().any()


def test_the_tables(rows, tried, folder):
    ball, far, more = defenses_report.summary(rows, SMOKE, tried)
    assert [row[0] for row in more.rows] == [one.label for one in tried[1:]]
    assert [row[0] for row in ball.rows] == ["none", *(one.label for one in tried)] == [row[0] for row in far.rows]
    assert ball.rows[1][-1].endswith("%") and ball.rows[0][-1] == "" and "[" in far.rows[1][-2], far.rows
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
