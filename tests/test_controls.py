"""The controls: noise of equal dose, and how far an attacker must go on until what was recovered is lost."""

import numpy as np
import polars as pl
import pytest

from odefend import dose
from odefend.errors import InvalidInput
from odefend.experiments.derive import matched_noise
from odefend.ledger.schema import LABELS, TABLES
from odefend.metrics import METRICS, Rows
from odefend.metrics.controls import doses, half_recovery

IMAGES = [f"i{number}" for number in range(30)]
SIGMAS = (0.01, 0.1, 0.3)


def judged(kind, model, rtol, values, sigma=None, draw=0, scale=1.0):
    """Rows of some images: true margins of clean ones, or whether attacked ones are right again."""
    clean = kind == "clean"
    columns = (
        {"true_margin": values}
        if clean
        else {"correct": values, "attack_success": True, "crafted": "made", "scale": scale}
    )
    fixed = {
        "key": f"{model} {rtol} {sigma} {scale}",
        "kind": kind,
        "model": model,
        "measure": kind,
        "net": "n",
        "rtol": rtol,
    }
    noise = {"sigma": sigma, "defense": None if sigma is None else "noise", "draw": draw}
    return pl.DataFrame({"image": IMAGES, **fixed, **noise, **columns})


@pytest.fixture
def rows():
    """A net at three tolerances, of which one moves margins by about .2, and the same under noise at that of the attack."""
    generator = np.random.default_rng(0)
    base = generator.normal(size=30)
    still = {1e-3: base, 1.0: base + 0.2 * generator.normal(size=30), 10.0: base + 2 * generator.normal(size=30)}
    frames = [judged("clean", "net", rtol, margins) for rtol, margins in still.items()]
    frames += [
        judged("adversarial", "net", rtol, list(generator.random(30) < 0.5), scale=s)
        for rtol in still
        for s in (1.0, 1.1)
    ]
    for sigma in SIGMAS:
        for draw in range(2):
            frames.append(judged("clean", "noise", 1e-3, base + 3 * sigma * generator.normal(size=30), sigma, draw))
            frames.append(judged("adversarial", "noise", 1e-3, list(generator.random(30) < 2 * sigma), sigma, draw))
    tables = [
        pl.DataFrame(schema=TABLES[name] | LABELS) for name in ("crafted", "judged", "scored", "certified", "traced")
    ]
    extra = {"epsilon": pl.Float64, "attacked_at": pl.Float64, "made_on": pl.String}
    tables[1] = pl.concat(
        [tables[1].with_columns(pl.lit(None, kind).alias(name) for name, kind in extra.items()), *frames],
        how="diagonal_relaxed",
    )
    return Rows(tables[0], tables[1], tables[2], tables[3], tables[4])


def sides(rows, tolerance):
    here = rows.where({"model": "net", "tolerance": tolerance, "scale": 1.0})
    noisy = rows.where({"model": ["net", "noise"], "tolerance": 1e-3})
    kept = (pl.col("kind") == "clean") | pl.col("sigma").is_not_null()
    return here, Rows(noisy.crafted, noisy.judged.filter(kept), noisy.scored, noisy.certified, noisy.traced)


def test_a_tolerance_beside_noise_of_equal_dose_is_what_the_doses_say(rows):
    """The metrics of tables are `dose.beside`, of the rows that a cell names."""
    here, noise = sides(rows, 1.0)
    clean = rows.judged.filter(kind="clean")
    back = here.judged.filter(kind="adversarial").sort("image")["correct"].cast(float).to_numpy()
    by_noise = {
        sigma: rows.judged.filter(kind="adversarial", sigma=sigma)
        .group_by("image")
        .agg(pl.col("correct").mean())
        .sort("image")["correct"]
        .to_numpy()
        for sigma in SIGMAS
    }
    expected = dose.beside(doses(clean, 1e-3), 1.0, back, by_noise)
    assert METRICS["noise of equal dose"].beside(here, noise).value == pytest.approx(expected.sigma)
    assert METRICS["recovered by noise of equal dose"].beside(here, noise) == expected.recovered
    assert METRICS["recovered minus noise of equal dose"].minus(here, noise) == expected.difference
    assert expected.difference.value == pytest.approx(back.mean() - expected.recovered.value)


def test_the_interval_of_the_dose_reaches_the_strongest_noise_where_the_control_may_be_too_weak(rows):
    near, far = (METRICS["noise of equal dose"].beside(*sides(rows, tolerance)) for tolerance in (1.0, 10.0))
    assert near.low < near.value < near.high < SIGMAS[-1] and far.high == pytest.approx(SIGMAS[-1])


def test_a_control_that_may_be_too_weak_lets_no_tolerance_recover_more(rows):
    """Nothing says what stronger noise than any that was judged would recover: all images, perhaps."""
    here, noise = sides(rows, 10.0)
    share = METRICS["recovered"].of(here).value
    by_noise = METRICS["recovered by noise of equal dose"].beside(here, noise)
    gap = METRICS["recovered minus noise of equal dose"].beside(here, noise)
    assert by_noise.high == 1 and gap.low == pytest.approx(share - 1) and gap.low < 0


def test_without_noise_beside_it_there_is_no_number(rows):
    here, noise = sides(rows, 1.0)
    with pytest.raises(InvalidInput, match="expected other rows under noise"):
        METRICS["noise of equal dose"].of(here)
    with pytest.raises(InvalidInput, match="expected a metric of two kinds of rows"):
        METRICS["recovered"].beside(here, noise)
    assert not METRICS["noise of equal dose"].beside(here, here).n
    assert not METRICS["noise of equal dose"].beside(rows, noise).n, "of several tolerances none is meant"


def test_noise_of_equal_dose_is_derived_for_each_tolerance_or_for_all_together(rows):
    clean = rows.where({"measure": "clean"})
    each, found = matched_noise(clean, 1e-3), doses(clean.judged, 1e-3)
    assert isinstance(each, list) and each == [found.sigma(1.0), found.sigma(10.0)]
    assert matched_noise(clean, 1e-3, within=(0.5, 5.0)) == each[0]
    assert matched_noise(clean, 1e-3, within=(0.5, 50.0)) == found.sigma(1.0, 10.0)


def test_s50_is_where_half_is_lost_with_an_interval_over_images(rows):
    cell = rows.where({"model": "net", "tolerance": 1.0})
    shares = {scale: cell.judged.filter(kind="adversarial", scale=scale)["correct"].mean() for scale in (1.0, 1.1)}
    found = METRICS["s50"].of(cell)
    assert found.value == half_recovery(shares) and found.low <= found.value <= found.high and found.n == 30
    nothing = Rows(cell.crafted, cell.judged.with_columns(correct=False), cell.scored, cell.certified, cell.traced)
    assert not METRICS["s50"].of(nothing).n
