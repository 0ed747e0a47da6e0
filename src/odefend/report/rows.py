"""An evaluation's rows, read once, by what they are about."""

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from odefend.dose import Doses
from odefend.errors import OutputError
from odefend.evaluation.detection import VOTES
from odefend.evaluation.ledger import Ledger
from odefend.evaluation.plan import calibrated, role, vote_noise
from odefend.evaluation.spec import Evaluation, Trial

UNUSED = ("data_digest", "net_digest", "training_seed", "gradient", "end", "method", "step", "coupling", "max_steps", "precision",
          "atol", "code_version", "schema_version")  # fmt: skip
"""Columns that tell how rows came about: of crafted rows they are told, of a million others they would fill the memory."""


@dataclass(frozen=True)
class Rows:
    """The tables of one evaluation, with what it says of itself.

    `judged` has one column more: `attacked_at`, the tolerance at which an adversarial image was made.
    """

    evaluation: Evaluation
    ledger: Ledger
    crafted: pl.DataFrame
    judged: pl.DataFrame
    scored: pl.DataFrame
    traced: pl.DataFrame
    finished: bool = True

    @classmethod
    def read(cls, evaluation: Evaluation, ledger: Ledger, finished: bool = True) -> "Rows":
        """From a ledger, finished or not."""
        crafted = _small(ledger.read("crafted", evaluation.name))
        codes = sorted(crafted["code_version"].drop_nulls().unique())
        if len(codes) > 1:
            raise OutputError(
                f"{ledger.folder}: expected rows of one code for {evaluation.name}, found those of {', '.join(codes)}: each image "
                "would count several times. Merge only ledgers made by the same odefend and torch."
            )
        judged, scored, traced = (
            _small(ledger.read(name, evaluation.name, UNUSED)) for name in ("judged", "scored", "traced")
        )
        made = crafted.select(pl.col("key").alias("crafted"), attacked_at="rtol").unique()
        return cls(evaluation, ledger, crafted, judged.join(made, on="crafted", how="left"), scored, traced, finished)

    @cached_property
    def doses(self) -> Doses | None:
        """How far changes of tolerance and noise move clean margins; None where that was not measured."""
        return calibrated(self.judged, self.evaluation)

    @cached_property
    def vote_sigma(self) -> float:
        """The noise that is equal to the range votes draw from."""
        return vote_noise(self.doses, self.evaluation)

    @cached_property
    def votes(self) -> list[int]:
        """The sizes of the votes that were scored."""
        most = self.evaluation.vote.votes if self.evaluation.vote else 0
        there = set(self.scored["detector"])
        return [votes for votes in sorted({*VOTES, most}) if f"tolerance vote, V = {votes}" in there]

    @cached_property
    def balls(self) -> pl.DataFrame:
        """Crafted rows of attacks in balls of the norm that the evaluation's `epsilon` is measured in: that of the first
        trial of this radius."""
        inside = self.crafted.filter(pl.col("epsilon") == self.evaluation.epsilon)
        there = set(inside["trial"])
        first = next((trial.name for trial in self.evaluation.trials if trial.name in there), "")
        norms = inside.filter(pl.col("trial") == first)["norm"]
        return self.crafted.filter(pl.col("norm").is_in(norms.unique().to_list()))

    @property
    def nets(self) -> list[str]:
        """The net in question, and the control."""
        return [net for net in (self.evaluation.net, self.evaluation.control) if net]

    @property
    def solves(self) -> bool:
        """Whether the net in question has a solver, as far as the rows tell."""
        rows = self.crafted.filter(pl.col("net") == self.evaluation.net)
        return rows["rtol"].null_count() < max(1, rows.height)

    @property
    def grid(self) -> tuple[float | None, ...]:
        """The tolerances that sentences about a ball name."""
        matrix = next(iter(self.matrices()), None)
        return matrix.at if matrix else (self.evaluation.tolerance if self.solves else None,)

    def trials(self, kind: str) -> list[Trial]:
        """The trials of a role that there are rows of: "minimum norm", "epsilon curve", "tolerance matrix" or "beside"."""
        there = set(self.crafted["trial"])
        return [trial for trial in self.evaluation.trials if role(trial) == kind and trial.name in there]

    def everywhere(self) -> list[tuple[Trial, float]]:
        """The trials of smallest norm that were judged at all tolerances, with each tolerance they attacked."""
        judged = self.judged.filter((pl.col("experiment") == "recovery") & (pl.col("net") == self.evaluation.net))
        there = set(judged.select("trial", "attacked_at").unique().iter_rows())
        return [
            (trial, at)
            for trial in self.trials("minimum norm")
            for at in self.evaluation.attacked_at(trial)
            if (trial.name, at) in there
        ]

    def matrices(self) -> list[Trial]:
        """The trials that were judged at each tolerance they attacked."""
        there = set(self.judged.filter(pl.col("experiment") == "tolerance matrix")["trial"])
        return [trial for trial in self.trials("tolerance matrix") if trial.name in there]

    def made(
        self, trial: str, net: str | None = None, epsilon: float | None = None, at: float | None = None
    ) -> pl.DataFrame:
        """Crafted rows of a trial: on one net, at one radius, at one tolerance."""
        rows = self.crafted.filter((pl.col("trial") == trial) & (pl.col("net") == (net or self.evaluation.net)))
        if epsilon is not None:
            rows = rows.filter(pl.col("epsilon") == epsilon)
        return rows if at is None else rows.filter(pl.col("rtol").is_null() | (pl.col("rtol") == at))

    def about(self, trial: Trial, at: float | None = None) -> pl.DataFrame:
        """Judged rows of one trial, attacked at one tolerance, and of unattacked images."""
        mine = pl.col("trial").is_null() | (pl.col("trial") == trial.name)
        if at is not None:
            mine &= pl.col("attacked_at").is_null() | (pl.col("attacked_at") == at)
        return self.judged.filter(mine)


def _small(rows: pl.DataFrame) -> pl.DataFrame:
    """Half the memory: whole numbers in four bytes, and names, which repeat, too."""
    return rows.with_columns(pl.col(pl.String).cast(pl.Categorical), pl.col(pl.Int64).cast(pl.Int32))
