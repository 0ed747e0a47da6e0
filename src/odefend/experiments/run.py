"""Running an experiment: what is known is done, values are derived from its rows, and what they make known is done next."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from odefend.engine import Runner, Task
from odefend.errors import InvalidInput
from odefend.experiments.derive import derive, needed
from odefend.experiments.expand import Expansion
from odefend.experiments.manifest import finish, open_manifest
from odefend.experiments.parts import Experiment
from odefend.ledger import Ledger
from odefend.metrics.rows import Rows
from odefend.progress import Progress


def run(
    experiment: Experiment, folder: Path, progress: Progress, workers: int | None = None, ray: str | None = None
) -> Ledger:
    """Do whatever of the experiment is not yet in the ledger at `folder`/ledger, on processes or on a Ray cluster (see
    `engine.Runner`); returns the ledger. Stopped in whatever way, it goes on when called again.

    Several experiments may share a folder: what they craft and judge alike is done once. Raises OutputError where the folder
    holds another experiment of this name, or of other nets or code: their rows must not be mixed.
    """
    with Runner(folder / "ledger", workers, ray) as runner:
        for number, tasks in enumerate(stages(experiment, runner.ledger)):
            if not number:  # What names something unknown leaves nothing behind.
                open_manifest(experiment, folder)
            stage = f"{experiment.name}, with values derived from rows" if number else experiment.name
            progress.stage(stage, sum(task.unit.cost for task in tasks))
            runner.run(tasks, progress.advance, experiment.name)
        finish(experiment, folder)
    return runner.ledger


def stages(experiment: Experiment, ledger: Ledger) -> Iterator[list[Task]]:
    """The experiment's units again and again, each time with the values that the rows in the ledger have come to tell."""
    values: dict[str, Any] = {}
    while True:
        expansion = Expansion(experiment, values)
        yield expansion.tasks()
        if not expansion.missing:
            return
        wanted = sorted(set(expansion.missing.values()))
        ready = [name for name in wanted if all(map(expansion.complete, needed(experiment, name)))]
        if not ready:
            raise InvalidInput(f"derived: expected values that can be derived one after the other, got {wanted}.")
        rows = Rows.read(ledger, experiment.name)
        values = values | {name: derive(experiment, name, rows) for name in ready}
