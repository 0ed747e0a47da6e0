"""An evaluation's units of work: what is crafted, and what each image is shown to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from odefend.dose import Doses
from odefend.evaluation.controls import doses
from odefend.evaluation.craft import Craft
from odefend.evaluation.doubts import PULLED_BACK
from odefend.evaluation.judge import Condition, Judge
from odefend.evaluation.screen import Screen
from odefend.evaluation.spec import Evaluation, Trial
from odefend.evaluation.trace import Trace
from odefend.evaluation.unit import Unit
from odefend.evaluation.views import Slice, View, opened_net, shards
from odefend.models import ODENet


@dataclass(frozen=True)
class Plan:
    """The units of an evaluation, in the order in which they can be run: what `crafts` and `calibration` need nothing for,
    and `judgements`, which need to know how much noise is equal to which change of tolerance."""

    evaluation: Evaluation

    def view(self, net: str, tolerance: float | None = None, gradient: str = "unrolled") -> View:
        """A net as it is attacked; one without a solver has no tolerance."""
        if not isinstance(opened_net(net), ODENet):
            return View(net)
        return View(net, self.evaluation.tolerance if tolerance is None else tolerance, gradient)

    @property
    def solves(self) -> bool:
        """Whether the net in question has a solver."""
        return isinstance(opened_net(self.evaluation.net), ODENet)

    @property
    def _compares(self) -> bool:
        """Whether anything is set beside noise."""
        return self.evaluation.vote is not None or any(trial.judged == "everywhere" for trial in self.evaluation.trials)

    def slices(self, count: int, split: str = "test") -> list[Slice]:
        """The images of a split that the evaluation takes, in shards; all of them where it has fewer."""
        return shards(self.evaluation.data, split, count, self.evaluation.shard, self.evaluation.sample)

    def crafts(self) -> list[Craft]:
        """Every attack on every net, tolerance, radius and shard."""
        return [unit for trial in self.evaluation.trials for unit in self.crafted_by(trial)]

    def crafted_by(self, trial: Trial) -> list[Craft]:
        """The units of one trial."""
        evaluation = self.evaluation
        nets = [evaluation.net, *([evaluation.control] if trial.control and evaluation.control else [])]
        images = self.slices(evaluation.images if trial.images is None else min(evaluation.images, trial.images))
        return [
            Craft(role(trial), attack, view, some, self._source(trial, view), evaluation.seed, trial=trial.name)
            for net in nets
            for view in self._views(trial, net)
            for attack in trial.made()
            for some in images
        ]

    def _views(self, trial: Trial, net: str) -> list[View]:
        at = self.evaluation.attacked_at(trial)
        # Without a solver, all tolerances are the same.
        return list(dict.fromkeys(self.view(net, tolerance, trial.gradient) for tolerance in at))

    def _source(self, trial: Trial, view: View) -> View | None:
        if trial.source is None:
            return None
        of = trial.source
        at = view.tolerance if of.tolerance is None else of.tolerance
        source = self.view(of.net or view.net, at, of.gradient)
        if source.tolerance is None:
            return source
        return replace(source, adjoint_tolerance=of.adjoint_tolerance, method=of.method, step=of.step)

    def calibration(self) -> list[Judge]:
        """Clean calibration images at every tolerance and under a grid of noise: what a change of either does to margins."""
        evaluation = self.evaluation
        if not evaluation.noise or not self.solves or not self._compares:
            return []
        still = tuple(Condition(tolerance) for tolerance in evaluation.tolerances)
        noisy = tuple(
            Condition(evaluation.tolerance, sigma=sigma, draw=draw)
            for sigma in evaluation.noise.grid
            for draw in range(2)
        )
        return [
            Judge("doses", self.view(evaluation.net), images, still + noisy, seed=evaluation.seed)
            for images in self.slices(evaluation.calibration, "validation")
        ]

    def judgements(self, sigmas: dict[float, float], vote_sigma: float) -> list[Judge]:
        """Everything that the crafted images and the clean ones are shown to; `sigmas`: the noise for each tolerance."""
        evaluation = self.evaluation
        nets = [evaluation.net, *([evaluation.control] if evaluation.control else [])]
        units = [
            Judge("clean", self.view(net), images, self._still(net, (1.0,)), seed=evaluation.seed)
            for net in nets
            for images in self.slices(max(evaluation.clean, evaluation.images))
        ]
        if sigmas and evaluation.noise:
            loud = self._noisy([max(sigmas.values())], (1.0,))
            units += [
                Judge("clean under noise", self.view(evaluation.net), images, loud, seed=evaluation.seed)
                for images in self.slices(max(evaluation.clean, evaluation.images))
            ]
        for trial in evaluation.trials:
            units += self._judged(trial, sigmas, vote_sigma)
        if evaluation.vote and self.solves:
            clean = [
                *self.slices(max(evaluation.clean, evaluation.images)),
                *self.slices(evaluation.calibration, "validation"),
            ]
            units += [unit for images in clean for unit in self._ballots(images, vote_sigma, (1.0,), None)]
        return units

    def traces(self) -> list[Trace]:
        """Whose states are followed: on nets with a solver, at the largest radius."""
        return [
            Trace("trace", unit, trial=trial.name)
            for trial in self.evaluation.trials
            if trial.traced
            for unit in self.crafted_by(trial)
            if unit.view.tolerance is not None and (not trial.epsilon or unit.attack.budget == max(trial.epsilon))
        ]

    def _judged(self, trial: Trial, sigmas: dict[float, float], vote_sigma: float) -> list[Judge]:
        evaluation, units = self.evaluation, list[Judge]()
        if trial.judged == "where attacked":
            return units
        for unit in self.crafted_by(trial):
            judge = Judge("", unit.view, unit.images, (), unit, evaluation.seed, trial.name)
            if trial.judged == "matrix":
                everywhere = tuple(Condition(tolerance) for tolerance in trial.at)
                units.append(replace(judge, experiment="tolerance matrix", conditions=everywhere))
                continue
            own = unit.view.net == evaluation.net
            shown = self._still(unit.view.net, evaluation.scales)
            shown += (Condition(unit.view.tolerance, scale=PULLED_BACK),)
            if own and sigmas and unit.view.tolerance == evaluation.tolerance:
                shown += self._noisy(sorted({*sigmas.values(), *self._grid}), (1.0,))
                shown += self._noisy([max(sigmas.values())], [scale for scale in evaluation.scales if scale > 1])
                if evaluation.vote:
                    units += self._ballots(unit.images, vote_sigma, evaluation.vote.scales, unit)
            units.append(replace(judge, experiment="recovery", conditions=shown))
        return units

    def _still(self, net: str, scales: Sequence[float]) -> tuple[Condition, ...]:
        tolerances = self.evaluation.tolerances if isinstance(opened_net(net), ODENet) else (None,)
        return tuple(Condition(tolerance, scale=scale) for tolerance in tolerances for scale in scales)

    @property
    def _grid(self) -> tuple[float, ...]:
        """Noise beside that which is matched, since what is matched is an estimate."""
        return self.evaluation.noise.grid if self.evaluation.noise else ()

    def _noisy(self, sigmas: Sequence[float], scales: Sequence[float]) -> tuple[Condition, ...]:
        assert self.evaluation.noise
        at, draws = self.evaluation.tolerance, range(self.evaluation.noise.draws)
        return tuple(
            Condition(at, sigma=sigma, draw=draw, scale=s) for sigma in sigmas for s in scales for draw in draws
        )

    def _ballots(self, images: Slice, sigma: float, scales: Sequence[float], crafted: Craft | None) -> list[Judge]:
        """The votes: V solves at random tolerances, and beside them V passes under noise of the same dose."""
        evaluation = self.evaluation
        assert evaluation.vote is not None
        at, draws, drawn = evaluation.tolerance, range(evaluation.vote.votes), evaluation.vote.range
        random = tuple(Condition(at, random=drawn, draw=draw, scale=s) for s in scales for draw in draws)
        noisy = tuple(Condition(at, sigma=sigma, draw=draw, scale=s) for s in scales for draw in draws)
        trial = crafted.trial if crafted else None
        judge = Judge("tolerance vote", self.view(evaluation.net), images, random, crafted, evaluation.seed, trial)
        return [judge, replace(judge, experiment="noise vote", conditions=noisy)]


def role(trial: Trial) -> str:
    """What a trial's crafted rows are for."""
    if trial.judged == "matrix":
        return "tolerance matrix"
    if trial.beside is not None:
        return "beside"
    return "epsilon curve" if trial.made()[0].budget is not None else "minimum norm"


def calibrated(judged: pl.DataFrame, evaluation: Evaluation) -> Doses | None:
    """How far a change of tolerance and noise move margins, from the rows of `calibration`; None without any."""
    rows = judged.filter(pl.col("experiment") == "doses")
    return doses(rows, evaluation.tolerance) if rows.height else None


def matched_noise(found: Doses | None, evaluation: Evaluation) -> dict[float, float]:
    """The standard deviation of dose-matched noise for each change of tolerance; empty without doses."""
    if found is None:
        return {}
    return {tolerance: found.sigma(tolerance) for tolerance in found.changes if tolerance != evaluation.tolerance}


def vote_noise(found: Doses | None, evaluation: Evaluation) -> float:
    """Noise of the same dose as the range that votes draw from: as the tolerances in it together."""
    if evaluation.vote is None or found is None:
        return 0.0
    return found.sigma(*(one for one in found.changes if evaluation.vote.low <= one <= evaluation.vote.high))


def work(unit: Unit) -> float:
    """How many gradients of single images a unit takes, about; an answer counts as 0.4 of one."""
    count = unit.images.stop - unit.images.start
    if isinstance(unit, Judge):
        return 0.4 * count * len(unit.conditions) * unit.view.passes
    if isinstance(unit, Screen):
        return 0.4 * count * len(unit.scales) * unit.watch.passes(unit.view)
    if isinstance(unit, Trace):
        return 2.0 * count
    gradients = unit.attack.cost
    if unit.guard is not None:  # each gradient is one through the detector as well
        gradients *= 1 + unit.guard.passes(unit.view)
    return count * gradients * (1.5 * unit.view.passes if unit.view.draws else unit.view.passes)
