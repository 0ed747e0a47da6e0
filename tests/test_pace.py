"""How long work has left: expected by what each piece costs, corrected by what pieces took; and what Ctrl-C leaves."""

import os
import signal
import time

import pytest

from odefend.attacks import FGSM
from odefend.cli import progress as display
from odefend.engine import Craft, ModelSpec, Runner, Slice, Task
from odefend.engine.pool import ProcessPool
from odefend.errors import Interrupted, Stopped
from odefend.experiments import Expansion, Experiment, pilot
from odefend.ledger import Label, Ledger
from odefend.progress import Pace


def test_expectations_are_corrected_by_kind():
    """Four pieces of expected cost 1: those of kind a take a second each, as expected, and those of kind b nine."""
    pace = Pace({"a1": ("a", 1.0), "a2": ("a", 1.0), "b1": ("b", 1.0), "b2": ("b", 1.0)})
    assert pace.done() == 0
    pace.heard({"a1": 0.5})
    assert pace.done() == pytest.approx(0.5), "half a piece of four"
    pace.finished("a1", 1.0)
    assert pace.done() == pytest.approx(1.0), "what is known of a holds for b as long as nothing is known of b"
    pace.finished("b1", 9.0)
    assert pace.done() == pytest.approx(4 * 10 / 20), "ten seconds of twenty"
    pace.heard({"b1": 0.2, "b2": 1.0})
    assert pace.done() == pytest.approx(4 * (10 + 0.99 * 9) / 20), (
        "a piece under way is not done, and a done one stays done"
    )
    pace.finished("a2", None)
    pace.finished("b2", 9.0)
    assert pace.done() == pytest.approx(4.0)
    assert Pace({}).done() == 0


def test_the_time_left_is_told_after_ten_seconds_however_little_is_done(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    clock = display._Clock()
    now[0] += 9
    assert clock.left(1.0, 3600.0) is None
    now[0] += 1
    assert clock.left(1.0, 3600.0) == pytest.approx(10 * 3599)
    assert clock.left(0.0, 3600.0) is None, "nothing tells how long nothing takes"


def test_each_gradient_that_is_followed_is_timed(monkeypatch):
    """An adjoint costs three times a step back through the solve: neither is taken for the other."""
    experiment = Experiment.model_validate(
        {
            "name": "x",
            "data": {"test": {"set": "digits", "count": 4}},
            "models": {"net": {"net": "digits-oon", "tolerance": 1e-3}},
            "attacks": {
                name: {"attack": "fgsm", "epsilon": 0.1, "on": "net", "source": source}
                for name, source in (
                    ("own", None),
                    ("adjoint", {"gradient": "adjoint"}),
                    ("tight", {"tolerance": 1e-5}),
                )
            },
        }
    )
    spent = {("unrolled", 1e-3): 1.0, ("adjoint", 1e-3): 10.0, ("unrolled", 1e-5): 5.0}
    monkeypatch.setattr(pilot, "_gradient", lambda net, _: spent[net.settings.gradient, net.settings.tolerance])
    found = pilot.expected_seconds(Expansion(experiment))
    own, adjoint, tight = found.values()
    assert own > 0 and adjoint == pytest.approx(10 * own) and tight == pytest.approx(5 * own)


TASK = Task(Craft(FGSM(0.1), ModelSpec("digits-res"), Slice("digits", "test", 0, 2)), Label("craft", "net"))


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="POSIX signals")
def test_a_worker_does_not_hear_of_ctrl_c_even_while_it_starts(tmp_path, capfd):
    """It reaches the whole group of processes; what then becomes of workers is for their parent to say."""
    pool = ProcessPool(1)
    try:
        future = pool.submit(TASK.unit, Ledger(tmp_path))
        (worker,) = pool.pool._processes.values()
        assert worker.pid
        for _ in range(20):
            os.kill(worker.pid, signal.SIGINT)
            time.sleep(0.05)
        seconds = future.result(timeout=120)
        assert seconds is not None and seconds > 0
    finally:
        pool.close(at_once=True)
    assert "Traceback" not in capfd.readouterr().err
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, []), "this process hears of it"


def interrupted_at(share):
    def tell(done):
        if done >= share:
            raise KeyboardInterrupt

    return tell


def test_something_is_said_to_be_kept_only_where_it_is(tmp_path):
    with pytest.raises(KeyboardInterrupt) as nothing, Runner(tmp_path, 1) as runner:
        runner.run([TASK], interrupted_at(0.0))
    assert not isinstance(nothing.value, Stopped)
    with pytest.raises(Stopped), Runner(tmp_path, 1) as runner:
        runner.run([TASK], interrupted_at(1.0))
    with pytest.raises(Stopped), Runner(tmp_path, 1) as runner:  # of an earlier run
        runner.run([TASK], interrupted_at(0.0))
    with pytest.raises(Interrupted, match="What was finished is kept"), display.showing(quiet=True):
        raise Stopped
    with pytest.raises(KeyboardInterrupt), display.showing(quiet=True):
        raise KeyboardInterrupt
