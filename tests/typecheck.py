"""How types are checked at run time under pytest: by beartype, which accepts an int where a float is asked for.

A check takes ten microseconds and a solve is hundreds of calls: checking all of them doubles what the tests cost. So the
first calls of each test are checked, and the first calls of what its fixtures do.
"""

from contextlib import contextmanager
from functools import wraps

import jaxtyping
from beartype import BeartypeConf, beartype

CALLS = 10_000

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
left = 0


def begin(calls: int = CALLS) -> None:
    """Check so many calls from here on."""
    global left
    left = calls
    jaxtyping.config.update("jaxtyping_disable", calls == 0)


@contextmanager
def unchecked():
    """Check nothing until this is left."""
    before = left
    begin(0)
    try:
        yield
    finally:
        begin(before)


def check(function):
    """The function, checked; the last call that is to be checked ends the checks."""
    strict = checked(function)

    @wraps(function)
    def counted(*args, **kwargs):
        global left
        left -= 1
        if left <= 0:
            begin(0)
        return strict(*args, **kwargs)

    return counted
