"""The ledger beyond reading and writing: queries, merging, verification, comparison, and what breaks a run."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import killed
import polars as pl
import pytest
import torch
from limits import full_disk

from odefend import intervals
from odefend.attacks import PGD
from odefend.engine import Craft, DefenseSpec, ModelSpec, Predict, Runner, Slice, Task
from odefend.engine.verify import verify
from odefend.errors import InvalidInput, OutputError
from odefend.ledger import Label, Ledger
from odefend.ledger.schema import COLUMNS, LABELS, TABLES
from odefend.ledger.storage import READERS

UNIT = Craft(PGD(0.2, steps=3), ModelSpec("digits-oon", 1e-3), Slice("digits", "test", 0, 20))
FOR = Label("craft", "net", "PGD")


def done(folder, *units, workers=1, experiment="first"):
    """The ledger at a folder, once units ran into it."""
    with Runner(folder, workers) as runner:
        runner.run([Task(unit, FOR) for unit in units], lambda _: None, experiment)
    return runner.ledger


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    return done(tmp_path_factory.mktemp("ledger"), UNIT)


def test_every_column_has_a_meaning():
    assert set(COLUMNS) == {*TABLES, "labels"} and set(COLUMNS["labels"]) == set(LABELS)
    for table, columns in TABLES.items():
        assert set(COLUMNS[table]) == set(columns) and all(COLUMNS[table].values())


def test_queries(ledger):
    found = ledger.query("select attack, count(*) as n, sum(cast(success as int)) as hits from crafted group by attack")
    assert found.to_dicts() == [{"attack": "PGD", "n": 20, "hits": int(ledger.read("crafted")["success"].sum())}]
    assert ledger.query("select experiment from labels")["experiment"].to_list() == ["first"]
    with pytest.raises(InvalidInput, match="ledger columns"):
        ledger.query("select colour from crafted")
    with pytest.raises(InvalidInput, match="The tables are crafted, judged, scored, certified, traced, labels"):
        ledger.query("selct")


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('{}')",
        "select * from crafted, READ_CSV ('{}')",
        "select image from crafted where image in (select word from \"read_csv\"/**/('{}'))",
        "with other as (select * from read_csv('{}')) select * from other",
        "create table other as select * from read_csv('{}')",
        "select * from '{}'",
    ],
)
def test_a_query_reads_no_file_but_the_ledgers(sql, ledger, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nhush\n")
    with pytest.raises(InvalidInput, match=r"The tables are|the ledger's tables alone") as told:
        ledger.query(sql.format(secret))
    assert "hush" not in str(told.value)


def test_no_column_is_called_as_what_a_query_may_not_read():
    assert not any(READERS.search(name) for columns in COLUMNS.values() for name in columns)


def test_ledgers_of_two_machines_become_one(ledger, tmp_path):
    """Each has a shard that the other lacks, and one that both have."""
    other = replace(UNIT, images=Slice("digits", "test", 20, 30))
    second, target = done(tmp_path / "other", UNIT, other), Ledger(tmp_path / "target")
    assert target.merge(ledger) == 1 and target.merge(second) == 1 and target.merge(second) == 0
    for table in TABLES:
        assert target.read(table, "first").equals(second.read(table, "first"))
    assert torch.equal(target.read_images(other.key), second.read_images(other.key))
    path = next((tmp_path / "other" / "crafted").glob(f"{other.key}*"))
    path.write_bytes(path.read_bytes()[:99])
    fresh = Ledger(tmp_path / "fresh")
    with pytest.raises(OutputError, match=f"{other.key}.*damaged"):
        fresh.merge(second)
    assert not fresh.has("crafted", other.key)


@pytest.mark.parametrize("key", ["../" * 3 + "outside", "{outside}", "A" * 20, "a" * 19, "a" * 20 + "\n", None])
def test_a_key_that_is_no_digest_becomes_no_path(key, ledger, tmp_path):
    """Not by merging, which takes keys from another's rows, nor by any other way in or out."""
    outside, other, target = tmp_path / "outside", Ledger(tmp_path / "other"), Ledger(tmp_path / "in" / "target")
    key = key and key.format(outside=outside)
    (other.folder / "crafted").mkdir(parents=True)
    rows = ledger.rows("crafted")
    both = pl.concat([rows, rows.with_columns(pl.lit(key, pl.String).alias("key"))])
    both.write_parquet(other.folder / "crafted" / f"{UNIT.key}.parquet")
    with pytest.raises(OutputError, match="expected keys of 20 hex digits"):
        target.merge(other)
    for use in (
        lambda: target.has("crafted", key),
        lambda: target.write("crafted", key, {"image": ["a"]}),
        lambda: target.read_shard("crafted", key),
        lambda: target.write_images(key, torch.rand(1, 1, 8, 8)),
        lambda: target.read_images(key),
        lambda: target.unpack({("crafted", key): b""}),
    ):
        if key is not None:
            with pytest.raises(OutputError, match="expected keys of 20 hex digits"):
                use()
    assert [path.name for path in tmp_path.iterdir()] == ["other"], "nothing was written, here or there"


def test_the_smallest_damage_changes_no_row(ledger, tmp_path):
    """Whichever bit of a file flips, the rows, labels and images in it are the same, or the file is named."""
    copy, generator = Ledger(tmp_path), random.Random(0)
    copy.merge(ledger)
    images = ledger.read_images(UNIT.key)
    for path in sorted(tmp_path.rglob("*.*")):
        content = path.read_bytes()
        for _ in range(30):
            damaged = bytearray(content)
            damaged[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
            path.write_bytes(damaged)
            try:
                rows, found = copy.read("crafted", "first"), copy.read_images(UNIT.key)
            except OutputError as error:
                assert str(path) in str(error) and "\n" not in str(error)
            else:
                assert rows.equals(ledger.read("crafted", "first")) and torch.equal(found, images)
        path.write_bytes(content)


def test_files_from_before_there_were_checksums_are_read(ledger, tmp_path):
    """But one that had a checksum, and lost it, is not."""
    older, rows = Ledger(tmp_path), ledger.rows("crafted")
    (tmp_path / "crafted").mkdir()
    path = tmp_path / "crafted" / f"{UNIT.key}.parquet"
    rows.write_parquet(path)
    assert older.rows("crafted").equals(rows)
    rows.write_parquet(path, metadata={"odefend": "sha256:"})
    with pytest.raises(OutputError, match="checksum"):
        older.rows("crafted")


def test_what_panics_inside_polars_is_an_error_of_ours(ledger, monkeypatch):
    def panic(*_, **__):
        raise pl.exceptions.PanicException("index out of bounds")

    monkeypatch.setattr(pl, "read_parquet", panic)
    with pytest.raises(OutputError, match="damaged: index out of bounds"):
        ledger.read_shard("crafted", UNIT.key)


def test_packed_shards_are_the_same_rows(ledger, tmp_path):
    """Also where packing was stopped before the small files were gone, and where more comes after."""
    packed, other = Ledger(tmp_path), replace(UNIT, images=Slice("digits", "test", 20, 30))
    packed.merge(ledger)
    shard = next((tmp_path / "crafted").iterdir())
    content = shard.read_bytes()
    assert packed.pack() == 1 and not shard.exists() and packed.pack() == 0
    assert packed.has("crafted", UNIT.key)
    assert packed.read("crafted").equals(ledger.read("crafted"))
    assert packed.read_shard("crafted", UNIT.key).equals(ledger.read_shard("crafted", UNIT.key))
    shard.write_bytes(content)
    assert packed.read("crafted").equals(ledger.read("crafted")), "a shard that is packed already does not count twice"
    shard.unlink()
    done(tmp_path, UNIT, other)
    assert packed.read("crafted").height == 30 and packed.pack() == 1 and packed.read("crafted").height == 30
    part = next((tmp_path / "crafted").glob("part-*"))
    part.write_bytes(part.read_bytes()[:99])
    with pytest.raises(OutputError, match=r"part-.*damaged"):
        Ledger(tmp_path).read("crafted")


def test_verification_finds_what_was_altered(ledger, tmp_path, test_digits):
    found = verify(ledger, sample=20)
    rows = ledger.read("crafted").filter(~pl.col("initially_wrong"))
    assert found.compared == rows.height and not found.contradicted
    copy = Ledger(tmp_path)
    copy.merge(ledger)
    images = copy.read_images(UNIT.key)
    broken = rows.filter("success").row(0, named=True)
    images[broken["position"]] = test_digits.images[broken["position"]]
    copy.write_images(UNIT.key, images)
    assert verify(copy, sample=20).contradicted == ((UNIT.key, broken["image"]),)


EIGHT, LOOSE = Slice("digits", "test", 0, 8), ModelSpec("digits-oon", 0.1)
DEFENSES = (
    (DefenseSpec("input-noise", '{"sigma":0.3}'), 2),
    (DefenseSpec("random-tolerance", '{"distribution":{"low":1.0,"high":100.0}}'), 0),
    (DefenseSpec("averaged", '{"defense":{"name":"input-noise","sigma":0.2},"draws":2}'), 0),
    (DefenseSpec("bit-depth", '{"bits":1}'), 0),
)


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """Nets behind several defenses, as they draw and averaged over draws, by another method in steps, and at another tolerance."""
    models = [replace(LOOSE, method="rk4", step=0.5), ModelSpec("digits-res")]
    models += [replace(LOOSE, defense=one, draws=draws) for one, draws in DEFENSES]
    craft = Craft(PGD(0.25, steps=1), LOOSE, EIGHT)
    units: list[Craft | Predict] = [craft, Predict(replace(LOOSE, tolerance=10.0), EIGHT, craft)]
    for model in models:
        # Followed is the bare net, so only the model itself tells who judged.
        craft = Craft(PGD(0.25, steps=1), model, EIGHT, None if model.net == "digits-res" else LOOSE)
        units += [craft, Predict(replace(model, draws=0), EIGHT, craft, draws=(3, 4) if model.defense else (0,))]
    return done(tmp_path_factory.mktemp("varied"), *units)


def test_verification_asks_each_net_as_it_was_asked(varied):
    """Behind its defense, over its draws, by its method in its steps, under its noise, or valid rows would be contradicted."""
    found = verify(varied, sample=10**6)
    attacked = varied.rows("crafted").filter(~pl.col("initially_wrong")).height
    assert found.compared == attacked + varied.rows("judged").height and found.left_out == 0
    assert not found.contradicted


def test_verification_finds_an_altered_row(varied, tmp_path):
    """In each shard the last row that counts is made to say something else."""
    ledger, altered = Ledger(tmp_path), []
    ledger.merge(varied)
    others = {"crafted": ("success", ~pl.col("success")), "judged": ("prediction", (pl.col("prediction") + 1) % 10)}
    for table, (column, other) in others.items():
        for path in (tmp_path / table).glob("*.parquet"):
            rows = pl.read_parquet(path).with_columns(place=pl.int_range(pl.len()))
            last = (rows.filter(~pl.col("initially_wrong")) if table == "crafted" else rows).row(-1, named=True)
            mine = pl.when(place=last["place"]).then(other).otherwise(column)
            rows.with_columns(mine.alias(column)).drop("place").write_parquet(path)
            altered.append((path.stem, last["image"]))
    assert len(altered) > 10 and set(verify(ledger, sample=10**6).contradicted) == set(altered)


def test_rows_that_do_not_tell_enough_are_left_out(ledger, tmp_path):
    old = Ledger(tmp_path)
    old.merge(ledger)
    for path in (tmp_path / "crafted").glob("*.parquet"):
        pl.read_parquet(path).drop("model_spec").with_columns(schema_version=pl.lit(6, pl.Int64)).write_parquet(path)
    found = verify(old)
    assert found.compared == 0 and found.left_out == ledger.rows("crafted").filter(~pl.col("initially_wrong")).height


def test_the_difference_of_equal_shares_is_uncertain_to_both_sides():
    same = intervals.mean_difference(torch.ones(20).numpy(), torch.ones(20).numpy())
    assert same.value == 0 and same.low == -same.high and same.high == intervals.rate(0, 20).high


def kill(folder, workers, when):
    """Start the run and kill it when it is time."""
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(folder), str(workers)]
    process = subprocess.Popen(command, start_new_session=True)
    when()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def rows_of(ledger):
    return {table: ledger.read(table, "killed") for table in ("crafted", "judged")}


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_runner_goes_on_to_the_same_rows(tmp_path):
    def shards():
        return [path for table in ("crafted", "judged") for path in (tmp_path / "b" / table).glob("*.parquet")]

    def two_are_there():
        deadline = time.monotonic() + 200
        while len(shards()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)

    kill(tmp_path / "b", 1, two_are_there)
    before = {path: path.read_bytes() for path in shards()}
    assert 2 <= len(before) < 18, "it was killed on the way"
    undisturbed, disturbed = killed.run(tmp_path / "a", 1), killed.run(tmp_path / "b", 1)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert rows_of(undisturbed)["judged"].height == 48
    for table, rows in rows_of(undisturbed).items():
        assert rows.equals(rows_of(disturbed)[table]), table


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_thirty_kills(tmp_path):
    moments = random.Random(0)
    for _ in range(30):
        kill(tmp_path / "b", 2, lambda: time.sleep(moments.uniform(0.5, 5.5)))
    undisturbed, disturbed = killed.run(tmp_path / "a", 1), killed.run(tmp_path / "b", 2)
    for table, rows in rows_of(undisturbed).items():
        assert rows.equals(rows_of(disturbed)[table]), table


def test_a_truncated_shard_is_named_and_done_again_once_removed(tmp_path):
    ledger = done(tmp_path, UNIT)
    whole, path = ledger.read("crafted"), tmp_path / "crafted" / f"{UNIT.key}.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(OutputError, match=r"damaged: .* Remove it and run again"):
        ledger.read("crafted")
    path.unlink()
    assert done(tmp_path, UNIT).read("crafted").equals(whole)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """Below a plain file, which stops even root."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write.*file"), Runner(tmp_path / "file" / "ledger", 1):
        pass


def test_a_full_disk_is_named(tmp_path):
    """Writing fails half way: the message says so, nothing half-written is left, and the next run goes on."""
    with Runner(tmp_path, 1) as runner:
        with full_disk(200), pytest.raises(OutputError, match=r"cannot write.*Free some space"):
            runner.run([Task(UNIT, FOR)], lambda _: None)
        assert not list((tmp_path / "labels").glob("*")) and not (tmp_path / "crafted").exists()
        runner.run([Task(UNIT, FOR)], lambda _: None)
        assert runner.ledger.read("crafted").height == 20
