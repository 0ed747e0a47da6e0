"""A Ray cluster as the runner's pool (extra `cluster`): nodes need odefend and the data sets, but no folder in common."""

import os
import tempfile
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from odefend.errors import InvalidInput, OdefendError
from odefend.evaluation.ledger import Ledger, Parcel
from odefend.evaluation.unit import Unit
from odefend.version import code_version


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError as error:
        raise InvalidInput('ray: not installed. Run: pip install "odefend[cluster]"') from error


class RayPool:
    """Units as tasks of one CPU each on the Ray cluster at `address` ("local": one of its own on this machine), or on the one
    that this process is connected to already.

    What a unit needs of the ledger travels with it, and the shards that it makes come back and are written here; a task
    whose node is lost is run again by Ray.
    """

    def __init__(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self.ray = _ray()
        self.joined = not self.ray.is_initialized()
        try:
            if self.joined:
                self.ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f'ray: no cluster at {address!r}: {str(error).splitlines()[0]} Start one by "ray start --head", or say "local".'
            ) from error
        self.width = max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        self.task = self.ray.remote(num_cpus=1, max_retries=3)(_run_there)

    def submit(self, unit: Unit, ledger: Ledger) -> "Future[None]":
        """Run a unit somewhere, and write what it made into `ledger` before the future is done."""
        done: Future[None] = Future()

        def arrived(result: "Future[Parcel]") -> None:
            try:
                ledger.unpack(result.result())
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)

        parcel = ledger.parcel("crafted", unit.needs)
        self.task.remote(unit, parcel, code_version()).future().add_done_callback(arrived)
        return done

    def heard(self) -> dict[str, float]:
        """Nothing: tasks tell of themselves when they are done."""
        return {}

    def explained(self, error: BaseException) -> BaseException:
        """An error of a unit as the user should see it."""
        if isinstance(error, self.ray.exceptions.RayTaskError):
            return getattr(error, "cause", None) or error
        if isinstance(error, self.ray.exceptions.RayError):
            return OdefendError(f"ray: {str(error).splitlines()[0]} Run again: what is finished is kept.")
        return error

    def close(self, *, at_once: bool) -> None:  # noqa: ARG002
        """Leave the cluster if it was joined here; tasks under way are cancelled then."""
        if self.joined:
            self.ray.shutdown()


def _run_there(unit: Unit, parcel: Parcel, version: str) -> Parcel:
    """On the node: in a ledger of its own, which holds no more than what the unit needs."""
    if code_version() != version:
        raise OdefendError(
            f"a node of the cluster has odefend {code_version()}, expected {version}. Install the same there."
        )
    torch.set_num_threads(1)  # as everywhere: the machine must not change a bit
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        ledger.unpack(parcel)
        unit.run(ledger)
        return ledger.parcel(unit.table, [unit.key])
