"""Who runs the units, in how many pieces and in what order, must not change a bit; who dies on the way, no row."""

import pickle
import random
import threading
import time
import traceback
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import pytest

from odefend.attacks import PGD
from odefend.engine import Craft, DefenseSpec, ModelSpec, Predict, Runner, Slice, Task, cluster
from odefend.engine.pool import ProcessPool
from odefend.errors import InvalidInput, OdefendError
from odefend.ledger import Label, Ledger
from odefend.version import code_of

pytestmark = pytest.mark.xdist_group("runner")  # one cluster, and no more processes than cores
NET, NOISY = (
    ModelSpec("digits-oon", 1e-3),
    ModelSpec("digits-oon", 1.0, defense=DefenseSpec("input-noise", '{"sigma":0.1}')),
)
FOR = Label("try", "net")
TABLES = ("crafted", "judged")


def units(shard=4, count=24, steps=3):
    found = []
    for start in range(0, count, shard):
        images = Slice("digits", "test", start, min(start + shard, count))
        craft = Craft(PGD(0.1, steps=steps), NET, images)
        found += [craft, *(Predict(model, images, craft) for model in (NET, NOISY))]
    return [Task(unit, FOR) for unit in found]


def run(folder, todo, **how):
    with Runner(folder, **how) as runner:
        runner.run(todo, lambda _: None, "it")
    return {table: runner.ledger.read(table, "it") for table in TABLES}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), units(), workers=1)


class Buggy(PGD):
    """An attack with a mistake in it."""

    def perturb(self, problem, rows):
        return problem.images[rows] / getattr(self, "nothing")  # noqa: B009


def test_a_bug_in_a_worker_shows_where_it_was(tmp_path):
    """The traceback of the other process stays with the error."""
    unit = Craft(Buggy(0.1), NET, Slice("digits", "test", 0, 4))
    with pytest.raises(AttributeError) as error, Runner(tmp_path, 2) as runner:
        runner.run([Task(unit, FOR)], lambda _: None)
    assert "in perturb" in "".join(traceback.format_exception(error.value))


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


@pytest.mark.slow  # starting Ray's workers takes a minute or two
def test_a_ray_cluster_gives_equal_bits(alone, local, tmp_path):
    """Also where the crafted images come from an earlier run, packed, and travel to the nodes."""
    crafts = [task for task in units() if isinstance(task.unit, Craft)]
    run(tmp_path, crafts[:2], workers=1)
    Ledger(tmp_path).pack()
    found = run(tmp_path, units(), ray=local)
    for table in TABLES:
        assert found[table].equals(alone[table])
    for task in crafts:
        assert Ledger(tmp_path).read_images(task.unit.key).shape[0] == 4


@pytest.mark.slow
def test_an_error_on_a_cluster_reaches_the_user(local, tmp_path):
    wrong = Craft(PGD(0.1), NET, Slice("digits", "test", 0, 4), source=ModelSpec("digits-oon", method="rk4"))
    with pytest.raises(InvalidInput, match="step: expected a positive"), Runner(tmp_path, ray=local) as runner:
        runner.run([Task(wrong, FOR)], print)


def test_nodes_of_other_code_or_weights_are_refused():
    """The versions are compared before the unit is looked into; its key is worked out from what the node has."""
    with pytest.raises(OdefendError, match=r"expected odefend 0\.0\.0\+other, found"):
        cluster._run_there((), b"rubbish", {}, "0.0.0+other")
    craft, judge = (task.unit for task in units()[:2])
    for unit in (craft, judge):
        foreign = replace(unit)
        foreign.__dict__["key"] = "of other weights"
        with pytest.raises(OdefendError, match="expected the weights of digits-oon and the images of digits"):
            cluster._run_there((), pickle.dumps(foreign), {}, code_of(*cluster.CODE))


class Submitted:
    """What Ray gives for a task that is under way."""

    def __init__(self, done):
        self.future = lambda: done


class FakeRay:
    """As much of Ray as the pool uses: tasks are run at once, here, or never."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            pass

    def __init__(self, fails=None, idle=False):
        self.fails, self.idle, self.calls = fails, idle, []

    def is_initialized(self):
        return False

    def init(self, **settings):
        self.calls.append(settings)
        if self.fails:
            raise self.fails

    def cluster_resources(self):
        return {"CPU": 2.0}

    def remote(self, **_):
        def of(function):
            def run(*arguments):
                done = Future()
                if not self.idle:
                    try:
                        done.set_result(function(*arguments))
                    except BaseException as error:
                        done.set_exception(error)
                return Submitted(done)

            return SimpleNamespace(remote=run)

        return of

    def cancel(self, task):
        self.calls.append("cancel")

    def shutdown(self):
        self.calls.append("shutdown")


def test_a_cluster_is_joined_with_this_machines_settings_and_left(alone, tmp_path, monkeypatch):
    ray = FakeRay()
    monkeypatch.setattr(cluster, "_ray", lambda: ray)
    monkeypatch.setenv("ODEFEND_DATA", "/somewhere")
    with Runner(tmp_path / "a", ray="auto") as runner:
        assert isinstance(runner.pool, cluster.RayPool)
        runner.run(units(), lambda _: None, "it")
        assert not runner.pool.tasks, "what came of a task is let go, or the cluster would keep all of it"
    for table in TABLES:
        assert runner.ledger.read(table, "it").equals(alone[table])
    joined, left = ray.calls
    assert joined["address"] == "auto" and joined["runtime_env"]["env_vars"]["ODEFEND_DATA"] == "/somewhere"
    assert left == "shutdown"

    def interrupted(_):
        if isinstance(runner.pool, cluster.RayPool) and runner.pool.tasks:
            raise KeyboardInterrupt

    ray.idle = True
    with pytest.raises(KeyboardInterrupt), Runner(tmp_path / "b", ray="auto") as runner:
        runner.run(units(), interrupted, "it")
    assert "cancel" in ray.calls and ray.calls[-1] == "shutdown"
    assert Runner(tmp_path / "b", 1).__enter__()  # the folder is free


def test_a_cluster_that_is_not_there_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_ray", lambda: FakeRay(ConnectionError("ray client connection timeout")))
    with (
        pytest.raises(InvalidInput, match=r"no cluster at 'ray://elsewhere:1'.*ray start"),
        Runner(tmp_path, ray="ray://elsewhere:1"),
    ):
        pass
    with Runner(tmp_path, 1):
        pass  # the folder is free


def test_no_workers_are_refused_and_not_taken_for_all(tmp_path):
    with pytest.raises(InvalidInput, match="workers: expected at least 1, got 0"):
        Runner(tmp_path, workers=0)


def test_workers_beside_a_cluster_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="workers: expected none"):
        Runner(tmp_path, workers=2, ray="local")


def killed(folder, todo, after, wait=0.0):
    """Run on two workers and kill one `wait` seconds after so many shards are there; whether that was before the end."""

    def kill():
        assert isinstance(runner.pool, ProcessPool)
        while not ended.is_set():
            shards = [path for table in TABLES for path in (folder / table).glob("*.parquet")]
            if len(shards) >= after and (workers := list(runner.pool.pool._processes.values())):
                ended.wait(wait)
                workers[0].kill()
                return
            time.sleep(0.01)

    ended = threading.Event()
    with Runner(folder, 2) as runner:
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            runner.run(todo, lambda _: None, "it")
            return False
        except OdefendError as error:
            assert "a worker process ended by itself" in str(error)
            return True
        finally:
            ended.set()
            killer.join()


def test_a_killed_worker_is_told_and_loses_nothing(alone, tmp_path):
    """One of the two ends by itself, as for lack of memory: a message, and the next run goes on."""
    assert killed(tmp_path, units(), 2)
    found = run(tmp_path, units(), workers=1)
    for table in TABLES:
        assert found[table].equals(alone[table])


@pytest.mark.slow
def test_thirty_killed_workers(tmp_path):
    """Three folders, a worker killed ten times in each on the way to the whole, at any moment between two shards."""
    moments = random.Random(0)
    undisturbed = run(tmp_path / "undisturbed", units(1), workers=1)
    for folder in (tmp_path / name for name in "abc"):
        folder.mkdir()
        told = [killed(folder, units(1), after, moments.uniform(0.0, 0.3)) for after in range(0, 40, 4)]
        assert all(told)
        found = run(folder, units(1), workers=2)
        for table in TABLES:
            assert found[table].equals(undisturbed[table])


def test_shards_of_seven_and_of_sixty_four_agree(tmp_path):
    """Between sizes of shards convolutions may round differently: labels, counts and successes agree, distances to 1e-4."""
    few, many = (run(tmp_path / str(shard), units(shard, 64), workers=1) for shard in (7, 64))
    one, two = (found["crafted"].sort("image") for found in (few, many))
    assert one["image"].to_list() == two["image"].to_list()
    for column in ("success", "initially_wrong", "gradient_calls"):
        assert one[column].to_list() == two[column].to_list(), column
    assert one["l2"].to_list() == pytest.approx(two["l2"].to_list(), rel=1e-4)
    first, second = (found["judged"].sort("image", "rtol") for found in (few, many))
    for column in ("prediction", "nfe", "accepted", "rejected", "status"):
        assert first[column].to_list() == second[column].to_list(), column
