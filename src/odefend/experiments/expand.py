"""From an experiment to its units of work: grids multiplied out, names looked up, derived values put in their places.

What needs a value that is not known yet is left out, and the value named in `missing`: units that are known are run first,
then the value is derived from their rows, and the experiment is expanded again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from odefend.attacks import Attack, named_attack
from odefend.data import tell_of_fewer
from odefend.engine import (
    Certify,
    Craft,
    DefenseSpec,
    DetectorAware,
    DetectorSpec,
    ModelSpec,
    Predict,
    Reshown,
    Score,
    Slice,
    Task,
    Trace,
    as_trained,
    shards,
)
from odefend.experiments.parts import AttackPart, Experiment, MeasurePart, Solver, SourcePart
from odefend.ledger import Label, canonical

ALL = 10**9
"""More images than there are."""


THRESHOLD = "-threshold"
"""How the names of values end that are thresholds of a detector, by share of false alarms."""


class NotKnown(Exception):
    """A derived value that is not known yet."""


@dataclass
class Expansion:
    """The units of an experiment, as far as the `values` derived so far tell them."""

    experiment: Experiment
    values: Mapping[str, Any] = field(default_factory=dict)
    _crafted: dict[str, list[Task]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Values that are not known yet, by the measures and attacks that need them."""

    def tasks(self) -> list[Task]:
        """All units that are known, each once for everything that it is for; what is not known yet is `missing` then."""
        self.missing = {}
        found: dict[tuple[str, Label], Task] = {}
        groups = [*(("attack", name) for name in self.experiment.attacks), *(("", name) for name in self.calibrated())]
        groups += [("measure", name) for name in self.experiment.measures]
        for kind, name in groups:
            try:
                some = {"attack": self.crafts, "measure": self.measured, "": self.calibration}[kind](name)
                for task in some:
                    found.setdefault((task.unit.key, task.label), task)
            except NotKnown as error:
                self.missing[name] = str(error)
        return list(found.values())

    def complete(self, measure: str) -> bool:
        """Whether all units of a measure are known."""
        return measure not in self.missing

    def slices(self, name: str, count: int | None = None) -> list[Slice]:
        """Data in pieces, each change of it by itself."""
        part = self.experiment.data[name]
        counts = [one for one in (part.count, count) if one is not None]
        whole = self._whole(name, min(counts) if counts else None)
        pieces = shards(whole, self.experiment.shard)
        if counts:
            tell_of_fewer(part.set, part.split, min(counts), sum(piece.stop - piece.start for piece in pieces))
        return [replace(piece, change=change) for change in several(part.change) or [None] for piece in pieces]

    def _whole(self, name: str, count: int | None = None) -> Slice:
        """Data in one piece."""
        part = self.experiment.data[name]
        stop = part.start + (count or part.count or ALL)
        return Slice(part.set, part.split, part.start, stop, sample=part.sample, options=canonical(part.options))

    def models(self, name: str) -> list[ModelSpec]:
        """A model at each point of its grid."""
        part = self.experiment.models[name]
        found = []
        for defense, solved in product(several(part.defense) or [None], self._solved(part)):
            trained = as_trained(part.net, canonical(part.options), canonical(part.wrap))
            spec = _solved_as(trained, solved)
            found += [replace(spec, defense=one) for one in self._defenses(defense)]
        return found

    def _solved(self, part: Solver) -> Iterator[dict[str, Any]]:
        """Its solver's settings at each point of the grid."""
        names = [name for name in Solver.model_fields if getattr(part, name) is not None]
        grids = [
            [one for value in several(getattr(part, name)) for one in several(self.resolved(value))] for name in names
        ]
        yield from (dict(zip(names, point, strict=True)) for point in product(*grids))

    def _defenses(self, defense: Any) -> list[DefenseSpec | None]:
        """A defense, with each of the values that a reference in it stands for."""
        if defense is None:
            return [None]
        settings = self.resolved(defense)
        if isinstance(settings, DefenseSpec):
            return [settings]
        if isinstance(settings, tuple | list):
            return [one for some in settings for one in self._defenses(some)]
        grids = [several(value) for value in settings.values()]
        points = (dict(zip(settings, values, strict=True)) for values in product(*grids))
        return [DefenseSpec(point.pop("name"), canonical(point)) for point in points]

    def resolved(self, value: Any) -> Any:
        """A value with what it refers to in place of the reference. Raises NotKnown where that is not known yet."""
        if isinstance(value, Mapping):
            return {key: self.resolved(one) for key, one in value.items()}
        if not _refers(value):
            return value
        name, _, key = value[1:].partition(".")
        if name not in self.values:
            raise NotKnown(name)
        return self.values[name][key] if key else self.values[name]

    def attacks(self, part: AttackPart) -> list[Attack]:
        """An attack at each radius."""
        settings = dict(self.resolved(part.settings))
        radii = several(self.resolved(part.epsilon))
        return [
            named_attack(part.attack, settings | ({} if one is None else {"epsilon": one})) for one in radii or [None]
        ]

    def crafts(self, name: str) -> list[Task]:
        """An attack on each model, at each radius, past each detector."""
        if name not in self._crafted:
            self._crafted[name] = self._crafts(name)
        return self._crafted[name]

    def known(self, name: str) -> list[Task]:
        """The same, as far as it is known: nothing where a value is missing."""
        try:
            return self.crafts(name)
        except NotKnown:
            return []

    def _crafts(self, name: str) -> list[Task]:
        part, found = self.experiment.attacks[name], list[Task]()
        seed = self.experiment.seed if part.seed is None else part.seed
        for model, (spec, attack) in self._attacked(part):
            if isinstance(part.source, SourcePart) and part.source.model is None and not spec.solves:
                continue  # What solves nothing cannot be solved otherwise.
            for aware, detector, alarms in self._aware(part, model):
                data = part.data or self.experiment.models[model].data
                label = Label("craft", model, name, data, part.role, detector, alarms)
                for images in self.slices(data, part.count):
                    looked_at = replace(spec, draws=part.draws) if spec.random else spec
                    craft = Craft(attack, looked_at, images, self._source(part, spec), seed, aware)
                    found.append(Task(craft, label))
        return found

    def _attacked(self, part: AttackPart) -> Iterator[tuple[str, tuple[ModelSpec, Attack]]]:
        for model in several(part.on):
            yield from ((model, pair) for pair in product(self.models(model), self.attacks(part)))

    def _source(self, part: AttackPart, spec: ModelSpec) -> ModelSpec | None:
        source = SourcePart(model=part.source) if isinstance(part.source, str) else part.source
        if source is None:
            return None
        base = self.models(source.model)[0] if source.model else replace(spec, draws=0)
        (changes,) = self._solved(source)
        given = {key: value for key, value in changes.items() if key in source.model_fields_set}
        return _solved_as(base, given)

    def _aware(self, part: AttackPart, model: str) -> Iterator[tuple[DetectorAware | None, str | None, float | None]]:
        """What the attacker of a model knows of detectors: nothing, or each beside it with its threshold for each share of false
        alarms."""
        if not part.knowing:
            yield None, None, None
        beside = [name for name in several(part.knowing) if self.experiment.detectors[name].model == model]
        for name, alarms, how in product(beside, several(part.alarms), several(part.combination)):
            if (derived := name + THRESHOLD) not in self.values:
                raise NotKnown(derived)
            threshold, scale = self.values[derived][alarms]
            yield DetectorAware(self.detector(name), threshold, scale, how), name, alarms

    def detector(self, name: str) -> DetectorSpec:
        """A detector, and what it is shown."""
        part = self.experiment.detectors[name]
        attacked = tuple(task.unit.key for attack in part.attacked for task in self.crafts(attack))
        learn = None
        if part.learn is not None:
            learn = self._whole(part.learn)
        return DetectorSpec(part.detector, canonical(self.resolved(part.settings)), learn, attacked, name)

    def calibrated(self) -> list[str]:
        """Detectors whose thresholds something needs: an attack that knows them, or rates of alarms."""
        known = {name for part in self.experiment.attacks.values() for name in several(part.knowing)}
        scoring = [part for part in self.experiment.measures.values() if part.measure == "score"]
        scored = {name for part in scoring for name in several(part.detectors) or self.experiment.detectors}
        held_out = {name for name in scored if self.experiment.detectors[name].calibration in self.experiment.data}
        return sorted(known | held_out)

    def calibration(self, name: str) -> list[Task]:
        """A detector before the clean images that its thresholds are set on."""
        part = self.experiment.detectors[name]
        (spec,) = self.models(part.model)
        label = Label("calibrate", part.model, data=part.calibration)
        pieces = self.slices(part.calibration)
        return [Task(Score(spec, images, self.detector(name), calibrating=True), label) for images in pieces]

    def measured(self, name: str) -> Iterator[Task]:
        """The units of one measure."""
        part = self.experiment.measures[name]
        kind = {"predict": self._predicted, "score": self._scored, "certify": self._certified, "trace": self._traced}
        return kind[part.measure](name, part)

    def _shown(self, part: MeasurePart, model: str) -> Iterator[tuple[str, Slice, Craft | None, Label | None]]:
        """(data, images, what they were crafted by, its label) of all that a measure shows to a model."""
        for images in several(part.images):
            if images != "clean":
                for task in self.crafts(images):
                    assert isinstance(task.unit, Craft)
                    if part.made_on and task.label.model not in several(part.made_on):
                        continue
                    if part.count is None or task.unit.images.start < part.count:
                        yield task.label.data, task.unit.images, task.unit, task.label
                continue
            for data in several(part.data) or [self.experiment.models[model].data]:
                yield from ((data, some, None, None) for some in self.slices(data, part.count))

    def _predicted(self, name: str, part: MeasurePart) -> Iterator[Task]:
        attacked = {model for images in several(part.images) if images != "clean"
                    for model in several(self.experiment.attacks[images].on)}  # fmt: skip
        for model in several(part.models) or list(self.experiment.models):
            for spec, (data, images, craft, made) in product(self.models(model), list(self._shown(part, model))):
                if part.pairing == "own" and made and model in attacked and not _own(spec, model, craft, made):
                    continue
                draws = tuple(range(part.draws)) if spec.random else (0,)
                unit = Predict(spec, images, craft, _reshown(part, craft), draws)
                yield Task(unit, _label(name, model, data, made))

    def _scored(self, name: str, part: MeasurePart) -> Iterator[Task]:
        for detector in several(part.detectors) or list(self.experiment.detectors):
            beside = self.experiment.detectors[detector].model
            (spec,) = self.models(beside)
            watch = self.detector(detector)
            for data, images, craft, made in self._shown(part, beside):
                if made is None or made.past in (None, detector):
                    asked = watch.resampled() if part.resampled else watch
                    yield Task(
                        Score(spec, images, asked, craft, _reshown(part, craft)), _label(name, beside, data, made)
                    )

    def _certified(self, name: str, part: MeasurePart) -> Iterator[Task]:
        for model in several(part.models) or list(self.experiment.models):
            for spec, (data, images, _, _) in product(self.models(model), list(self._shown(part, model))):
                yield Task(Certify(spec, images, draws=part.draws, **part.settings), _label(name, model, data))

    def _traced(self, name: str, part: MeasurePart) -> Iterator[Task]:
        for task in (task for attack in several(part.images) for task in self.crafts(attack)):
            if isinstance(task.unit, Craft) and task.unit.model.solves:
                yield Task(Trace(task.unit, **part.settings), replace(task.label, measure=name))


def _own(spec: ModelSpec, model: str, craft: Craft | None, made: Label) -> bool:
    """Whether the images were made on this very model."""
    return made.model == model and craft is not None and replace(craft.model, draws=0) == spec


def _label(measure: str, model: str, data: str, made: Label | None = None) -> Label:
    """What the rows of a measure are for; of adversarial images, with what is said of their making."""
    return Label(measure, model, data=data) if made is None else replace(made, measure=measure, model=model, data=data)


def _reshown(part: MeasurePart, craft: Craft | None) -> Reshown:
    return Reshown(tuple(several(part.scales)), part.to_epsilon, part.rounded) if craft else Reshown()


def _refers(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("$")


def several(value: Any) -> Sequence[Any]:
    """One value or several, as several."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _solved_as(spec: ModelSpec, settings: Mapping[str, Any]) -> ModelSpec:
    """The model solved with other settings; a net that solves nothing has none."""
    return replace(spec, **settings) if spec.solves else spec
