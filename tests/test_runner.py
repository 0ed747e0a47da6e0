"""Who runs the units, in how many pieces and in what order, must not change a bit; who dies on the way, no row."""

import threading
import time

import pytest

from odefend.attacks import PGD
from odefend.errors import InvalidInput, OdefendError
from odefend.evaluation import Condition, Craft, Judge, Ledger, Runner, Slice, View, cluster
from odefend.evaluation.pool import ProcessPool

pytestmark = pytest.mark.xdist_group("runner")  # one cluster, and no more processes than cores
VIEW = View("digits-oon", 1e-3)
TABLES = ("crafted", "judged")


def units(shard=4, count=24, steps=3):
    found = []
    for start in range(0, count, shard):
        images = Slice("digits", "test", start, min(start + shard, count))
        craft = Craft("try", PGD(0.1, steps=steps), VIEW, images)
        found += [craft, Judge("try", VIEW, images, (Condition(1e-3), Condition(1.0, sigma=0.1)), craft)]
    return [(unit, 1.0) for unit in found]


def run(folder, todo, **how):
    with Runner(folder, **how) as runner:
        runner.run(todo, lambda _: None, "it")
    return {table: runner.ledger.read(table, "it") for table in TABLES}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), units(), workers=1)


def test_two_workers_and_another_order_give_equal_bits(alone, tmp_path):
    found = run(tmp_path, units()[::-1], workers=2)
    for table in TABLES:
        assert found[table].equals(alone[table])


@pytest.fixture(scope="module")
def local():
    """A cluster on this machine, of two workers."""
    ray = pytest.importorskip("ray", reason="needs the extra cluster")
    ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    yield "local"
    ray.shutdown()


def test_a_ray_cluster_gives_equal_bits(alone, local, tmp_path):
    """Also where the crafted images come from an earlier run, packed, and travel to the nodes."""
    crafts = [pair for pair in units() if isinstance(pair[0], Craft)]
    run(tmp_path, crafts[:2], workers=1)
    Ledger(tmp_path).pack()
    found = run(tmp_path, units(), ray=local)
    for table in TABLES:
        assert found[table].equals(alone[table])
    for unit, _ in crafts:
        assert Ledger(tmp_path).read_images(unit.key).shape[0] == 4


def test_an_error_on_a_cluster_reaches_the_user(local, tmp_path):
    wrong = Craft("try", PGD(0.1), VIEW, Slice("digits", "test", 0, 4), source=View("digits-oon", method="rk4"))
    with pytest.raises(InvalidInput, match="step: expected a positive"), Runner(tmp_path, ray=local) as runner:
        runner.run([(wrong, 1.0)], print)


def test_nodes_of_other_code_are_refused(tmp_path):
    unit, _ = units()[0]
    with pytest.raises(OdefendError, match="a node of the cluster has odefend"):
        cluster._run_there(unit, {}, "0.0.0+other")


def test_a_cluster_that_is_not_there_is_explained(tmp_path, monkeypatch):
    class Away:
        def is_initialized(self):
            return False

        def init(self, **_):
            raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(cluster, "_ray", Away)
    with (
        pytest.raises(InvalidInput, match=r"no cluster at 'ray://elsewhere:1'.*ray start"),
        Runner(tmp_path, ray="ray://elsewhere:1"),
    ):
        pass
    with Runner(tmp_path, 1):
        pass  # the folder is free


def test_workers_beside_a_cluster_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="workers: expected none"):
        Runner(tmp_path, workers=2, ray="local")


def killed(folder, after):
    """Run on two workers and kill one when so many shards are there; whether it was killed before all was done."""

    def kill():
        while not ended.is_set():
            if len([*folder.glob("*/*.parquet")]) > after:
                assert isinstance(runner.pool, ProcessPool)
                next(iter(runner.pool.pool._processes.values())).kill()
                return
            time.sleep(0.01)

    ended = threading.Event()
    with Runner(folder, 2) as runner:
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            runner.run(units(), lambda _: None, "it")
            return False
        except OdefendError as error:
            assert "a worker process ended by itself" in str(error)
            return True
        finally:
            ended.set()
            killer.join()


def test_a_killed_worker_is_told_and_loses_nothing(alone, tmp_path):
    """One of the two ends by itself, as for lack of memory: a message, and the next run goes on."""
    assert killed(tmp_path, 2)
    found = run(tmp_path, units(), workers=2)
    for table in TABLES:
        assert found[table].equals(alone[table])


@pytest.mark.slow
def test_thirty_killed_workers(alone, tmp_path):
    """Three folders, a worker killed ten times in each on the way to the whole, wherever that is."""
    for folder in (tmp_path / name for name in "abc"):
        folder.mkdir()
        told = [killed(folder, after) for after in range(10)]
        assert sum(told) >= 8
        found = run(folder, units(), workers=2)
        for table in TABLES:
            assert found[table].equals(alone[table])


def test_shards_of_seven_and_of_sixty_four_agree(tmp_path):
    """Between sizes of shards convolutions may round differently: labels, counts and successes agree, distances to 1e-5."""
    few, many = (run(tmp_path / str(shard), units(shard, 64), workers=1) for shard in (7, 64))
    one, two = (found["crafted"].sort("image") for found in (few, many))
    assert one["image"].to_list() == two["image"].to_list()
    for column in ("success", "initially_wrong", "gradient_calls"):
        assert one[column].to_list() == two[column].to_list(), column
    assert one["l2"].to_list() == pytest.approx(two["l2"].to_list(), rel=1e-4)
    first, second = (found["judged"].sort("image", "scale", "sigma", "rtol") for found in (few, many))
    for column in ("prediction", "nfe", "accepted", "rejected", "status"):
        assert first[column].to_list() == second[column].to_list(), column
