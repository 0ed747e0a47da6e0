"""A Ray cluster as the runner's pool (extra `cluster`): nodes need odefend, weights and data sets, but no folder in common."""

import os
import pickle
import tempfile
from concurrent.futures import Future
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from odefend.engine.unit import Unit
from odefend.errors import InvalidInput, MissingExtra, OdefendError
from odefend.ledger.storage import Bundle, Ledger
from odefend.named import files_run, run_files
from odefend.version import code_of

CODE = ("odefend.engine.unit", "odefend.attacks")
"""What a node must have as it is here."""
CARRIED = ("ODEFEND_DATA", "ODEFEND_ZOO", "ODEFEND_CACHE")
"""Settings of this process that the nodes take over."""


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError as error:
        raise MissingExtra('ray: not installed. Run: pip install "odefend[cluster]"') from error


class RayPool:
    """Units as tasks of one CPU each on the Ray cluster at `address` ("local": one of its own on this machine), or on the one
    that this process is connected to already.

    What a unit needs of the ledger travels with it, and the shards that it makes come back and are written here; a task
    whose node is lost is run again by Ray.
    """

    def __init__(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self.ray, self.tasks, self.closed = _ray(), set[Any](), False
        self.joined = not self.ray.is_initialized()
        settings = {name: os.environ[name] for name in CARRIED if name in os.environ}
        try:
            if self.joined:
                self.ray.init(
                    address=address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": settings}
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f'ray: no cluster at {address!r}: {_first_line(error)} Start one by "ray start --head", or say "local".'
            ) from error
        self.task = self.ray.remote(num_cpus=1, max_retries=3)(_run_there)

    @property
    def width(self) -> int:
        """CPUs of the cluster now."""
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def submit(self, unit: Unit, ledger: Ledger) -> "Future[float | None]":
        """Run a unit somewhere, and write what it made into `ledger` before the future is done."""
        done: Future[float | None] = Future()

        def arrived(result: "Future[Bundle]") -> None:
            self.tasks.discard(task)  # as long as it is held, the cluster keeps what came of it
            try:
                bundle = result.result()
                if not self.closed:  # the folder may be another runner's by now
                    ledger.unpack(bundle)
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)

        bundle = ledger.bundle("crafted", unit.needs)
        # Pickled here, so that a node of other code compares versions before it looks inside.
        task = self.task.remote(files_run(), pickle.dumps(unit), bundle, code_of(*CODE))
        self.tasks.add(task)
        task.future().add_done_callback(arrived)
        return done

    def heard(self) -> dict[str, float]:
        """Nothing: tasks tell of themselves when they are done."""
        return {}

    def explained(self, error: BaseException) -> BaseException:
        """An error of a unit as the user should see it."""
        if isinstance(error, self.ray.exceptions.RayTaskError):
            cause = getattr(error, "cause", None)
            return (
                type(cause)(f"on a node of the cluster: {cause}") if isinstance(cause, OdefendError) else cause or error
            )
        if isinstance(error, self.ray.exceptions.RayError | ConnectionError):
            return OdefendError(f"ray: {_first_line(error)} Run again: what is finished is kept.")
        return error

    def close(self, *, at_once: bool) -> None:
        """Leave the cluster if it was joined here; `at_once`: tasks under way are cancelled, and what they made is dropped."""
        self.closed = True
        if at_once:
            for task in list(self.tasks):
                self.ray.cancel(task)
        if self.joined:
            self.ray.shutdown()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _run_there(files: tuple[str, ...], pickled: bytes, bundle: Bundle, version: str) -> Bundle:
    """On the node: in a ledger of its own, which holds no more than what the unit needs."""
    if code_of(*CODE) != version:
        raise OdefendError(
            f"expected odefend {version}, found {code_of(*CODE)}. Install the same odefend and torch there."
        )
    run_files(files)
    unit: Unit = pickle.loads(pickled)
    if _anew(unit).key != unit.key:
        raise OdefendError(
            f"expected the weights of {unit.model.net} and the images of {unit.images.data} that are here, found others. Copy "
            "them to the nodes."
        )
    torch.set_num_threads(1)  # as everywhere: the machine must not change a bit
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        ledger.unpack(bundle)
        unit.run(ledger)
        return ledger.bundle(unit.table, [unit.key])


def _anew(unit: Any) -> Any:
    """The unit without the key that travelled with it, so that it is worked out from what is here."""
    crafted = getattr(unit, "crafted", None)
    return replace(unit, crafted=replace(crafted)) if crafted else replace(unit)
