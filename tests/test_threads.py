"""Threads by the work and by what the machine has free, and never against the user."""

from types import SimpleNamespace

import pytest

import odefend
from odefend import threads
from odefend.threads import SAID, VALUES, threads_for
from odefend.training import read_recipe, try_out


class Machine:
    """torch on a machine with 8 cores, of which others keep some busy; with what was set there."""

    def __init__(self):
        self.now, self.elsewhere, self.calls = 8, 0.0, []

    def set_num_threads(self, number):
        self.now = number
        self.calls.append(number)

    def get_num_threads(self):
        return self.now


@pytest.fixture
def machine(monkeypatch):
    there = Machine()
    monkeypatch.setattr(threads, "torch", there)
    monkeypatch.setattr(threads, "CORES", 8)
    monkeypatch.setattr(threads, "_elsewhere", SimpleNamespace(busy=lambda: there.elsewhere))
    for name in SAID:
        monkeypatch.delenv(name, raising=False)
    return there


@pytest.mark.parametrize(
    ("values", "elsewhere", "expected"),
    [
        (16 * 64, 0.0, 1),  # digits
        (2 * VALUES, 0.0, 2),
        (64 * 784, 0.0, 6),  # MNIST
        (32 * 64 * 64 * 3, 0.0, 8),  # the forensic net's
        (32 * 64 * 64 * 3, 0.4, 8),
        (32 * 64 * 64 * 3, 3.2, 5),
        (32 * 64 * 64 * 3, 8.0, 1),
        (64 * 784, 3.0, 5),
        (0, 0.0, 1),
    ],
)
def test_there_are_as_many_as_the_work_keeps_busy_and_the_machine_has_free(values, elsewhere, expected, machine):
    machine.elsewhere = elsewhere
    with threads_for(values):
        assert machine.now == expected
        with threads_for(10**9), threads_for(1):
            assert machine.now == (expected if expected < 8 else 1)  # what is begun is not changed on the way
    assert machine.now == 8
    with pytest.raises(ZeroDivisionError), threads_for(values):
        raise ZeroDivisionError
    assert machine.now == 8


@pytest.mark.parametrize("name", SAID)
def test_a_variable_is_the_users_word(name, machine, monkeypatch):
    monkeypatch.setenv(name, "8")
    with threads_for(1):
        assert machine.now == 8
    assert machine.calls == []


@pytest.mark.parametrize("number", [1, 3, 16])
def test_a_number_that_torch_would_not_have_chosen_is_the_users(number, machine):
    machine.now = number
    for values in (1, 10**9):
        with threads_for(values):
            assert machine.now == number
    assert machine.calls == []


def test_predictions_attacks_and_trainings_of_small_images_have_one(machine, oon, test_digits):
    images, labels = test_digits[:2].images, test_digits[:2].labels
    for work, times in (
        (lambda: oon.predict(images), 1),
        (lambda: odefend.FGSM(0.1)(oon, images, labels), 1),
        (lambda: try_out(read_recipe("digits-res"), 1), 2),  # first with two images, to see that the net takes them
    ):
        work()
        assert machine.calls == [1, 8] * times
        machine.calls.clear()


def test_what_others_do_is_what_all_do_less_what_this_process_does(monkeypatch):
    told = iter([(0.0, 100.0, 5.0), (2.0, 104.5, 6.5), (2.5, 104.5, 6.5)])
    monkeypatch.setattr(threads._Elsewhere, "_now", staticmethod(lambda: next(told)))
    clock = iter([2.0, 2.5])
    monkeypatch.setattr(threads, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    elsewhere = threads._Elsewhere()
    assert elsewhere.busy() == pytest.approx((4.5 - 1.5) / 2)
    assert elsewhere.busy() == pytest.approx(1.5)  # half a second later


def test_the_cores_are_those_that_torch_counts():
    assert threads._cores() >= 1 and threads._Elsewhere().busy() == 0
