"""An experiment as one value: data, models, attacks, detectors, measures, and the tables, figures and claims made of them.

Lists expand to grids: a model at five tolerances is five models of one name, an attack at three radii three attacks. A text
that begins with `$` is a value derived from earlier rows, such as `$dose` or `$vote.threshold`: see `derived`.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from odefend.attacks.presets import Radius

T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Reference = Annotated[str, Field(pattern=r"^\$[A-Za-z]")]
Tolerance = Annotated[float, Field(gt=0)] | Reference
OneOrMore = T | tuple[T, ...]
Combination = Literal["selective", "orthogonal", "joint"]
Gradient = Literal["unrolled", "exact", "torchdiffeq", "checkpoint", "adjoint"]


class Part(BaseModel):
    """A part of an experiment: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class DataPart(Part):
    """Images and labels."""

    set: str = Field(description="a data set, a folder with one sub-folder per class, or file.py:callable")
    split: Literal["train", "validation", "test"] = "test"
    count: Count | None = Field(default=None, description="so many images; default: all of the split")
    start: Annotated[int, Field(ge=0)] = Field(default=0, description="leave out so many first")
    sample: int | None = Field(
        default=None, description="draw the images at random by this seed; default: the first ones"
    )
    change: OneOrMore[str] = Field(default=(), description="a tampering applied to each image: see odefend.TAMPERINGS")
    options: Mapping[str, Any] = Field(default={}, description="of the data set or the callable")


class Solver(Part):
    """How a net with a solver is solved and differentiated; default: as it was trained."""

    tolerance: OneOrMore[Tolerance] | None = None
    gradient: OneOrMore[Gradient] = "unrolled"
    adjoint_tolerance: OneOrMore[Tolerance] | None = Field(
        default=None, description="of the adjoint; default: tolerance"
    )
    method: OneOrMore[str] | None = Field(default=None, description="of the solver, such as dopri5, tsit5 or rk4")
    step: OneOrMore[float] | None = Field(default=None, description="step size of a method of fixed steps")
    end: Literal["interpolate", "clip"] = "interpolate"
    coupling: Literal["sample", "batch"] = "sample"
    max_steps: OneOrMore[Count | Reference] = 1000


class ModelPart(Solver):
    """A net, perhaps behind a defense."""

    net: str = Field(description="a name of the zoo, a checkpoint, or file.py:callable")
    options: Mapping[str, Any] = Field(default={}, description="arguments of the callable")
    wrap: Mapping[str, Any] = Field(
        default={},
        description="arguments of odefend.as_classifier for a net of your own, such as mean, std, range, size",
    )
    data: str = Field(
        default="test", description="that it is attacked and judged on, unless an attack or measure says otherwise"
    )
    defense: OneOrMore[Mapping[str, Any] | Reference] = Field(
        default=(), description="its name with its settings, as in { name = 'input-noise', sigma = 0.1 }"
    )


class SourcePart(Solver):
    """Whose gradients an attack follows: another model, or the attacked one solved otherwise."""

    model: str | None = Field(default=None, description="default: the attacked one")


class AttackPart(Part):
    """An attack with its settings, on some models."""

    attack: str = Field(description="an attack or a preset (see `odefend attacks`), or file.py:Class")
    settings: Mapping[str, Any] = Field(default={}, description="of the attack, such as steps")
    epsilon: OneOrMore[Radius] = Field(default=(), description="radius of the ball, for an attack that has one")
    on: OneOrMore[str] = Field(description="models attacked")
    source: str | SourcePart | None = Field(
        default=None,
        description="whose gradients are followed: a model, or changes to how a net with a solver is solved",
    )
    draws: Annotated[int, Field(ge=0)] = Field(
        default=0, description="of a random defense, averaged for the gradient; the judge's are others"
    )
    knowing: OneOrMore[str] = Field(
        default=(), description="detectors of the attacked models that have to be passed as well"
    )
    alarms: OneOrMore[Share] = Field(default=0.05, description="false alarms that their thresholds are set for")
    combination: OneOrMore[Combination] = Field(
        default="selective", description="how the gradients of model and detector are combined"
    )
    data: str | None = Field(default=None, description="default: the model's")
    count: Count | None = Field(default=None, description="the first so many of the data only")
    seed: int | None = Field(default=None, description="of its random draws; default: the experiment's")
    role: Literal["oblivious", "transfer", "white-box", "adaptive", "black-box"] = Field(
        default="white-box", description="what the attacker knows: nothing of the defense, another net, the net, all"
    )


class DetectorPart(Part):
    """A detector beside a model."""

    detector: str = Field(description="a name (see `odefend detector list`), or file.py:Class")
    settings: Mapping[str, Any] = {}
    model: str
    learn: str | None = Field(default=None, description="data that it is fitted to, where it learns")
    attacked: tuple[str, ...] = Field(default=(), description="attacks whose images a supervised one is shown")
    calibration: str = Field(default="calibration", description="clean data that thresholds are set on")


class MeasurePart(Part):
    """What images are shown to, and what is written down."""

    measure: Literal["predict", "score", "certify", "trace"]
    models: OneOrMore[str] = Field(default=(), description="that predict or certify; default: all")
    detectors: OneOrMore[str] = Field(default=(), description="that score; default: all")
    images: OneOrMore[str] = Field(default="clean", description="clean, or attacks")
    data: OneOrMore[str] = Field(default=(), description="of clean images; default: the model's")
    count: Count | None = Field(default=None, description="the first so many only")
    pairing: Literal["own", "each"] = Field(
        default="own", description="own: a model sees what was made on it, if anything was; each: it sees everything"
    )
    made_on: OneOrMore[str] = Field(default=(), description="only images that were made on these models; default: all")
    scales: OneOrMore[Annotated[float, Field(gt=0)]] = Field(default=1.0, description="s in x + s (x_adv - x)")
    to_epsilon: float | None = Field(default=None, description="rescale each perturbation to this L-inf size instead")
    rounded: bool = Field(default=False, description="round adversarial images to 8 bits, as a file would")
    draws: Count = Field(default=1, description="of a random model; or, to certify, those that bound the probability")
    resampled: bool = Field(default=False, description="score under draws that no attack has seen")
    settings: Mapping[str, Any] = Field(default={}, description="of certify (selecting, alpha) or trace (points)")


class DerivedPart(Part):
    """A value computed from the rows of some measures before other work begins."""

    value: str | Callable[..., Any] = Field(
        description="matched-noise, equal-noise, step-cap, admissible, tuned, or a function of the rows"
    )
    of: OneOrMore[str] = Field(description="the measures it is read from")
    settings: Mapping[str, Any] = {}


class Cell(Part):
    """A number: a metric of the rows with these values. What is not given is not asked for."""

    metric: Any = Field(default="", description="a name of odefend.metrics.METRICS; in Python also a function of rows")
    model: OneOrMore[str] | None = None
    attack: OneOrMore[str] | None = None
    made_on: OneOrMore[str] | None = Field(default=None, description="model that adversarial images were made on")
    measure: OneOrMore[str] | None = None
    data: OneOrMore[str] | None = None
    detector: OneOrMore[str] | None = None
    defense: OneOrMore[str] | None = Field(default=None, description="as rows have it: canonical JSON")
    tolerance: OneOrMore[float] | None = Field(default=None, description="of the model that is attacked or judges")
    attacked_at: OneOrMore[float] | None = Field(default=None, description="tolerance at which judged images were made")
    epsilon: OneOrMore[float] | None = None
    scale: OneOrMore[float] | None = None
    sigma: float | None = None
    alarms: OneOrMore[float] | None = Field(
        default=None,
        description="share of false alarms allowed; of several the least, with attacks that know any of them",
    )
    radius: OneOrMore[Radius] | None = Field(
        default=None, description="L2 distance within which certificates hold; several are points of a curve"
    )
    role: OneOrMore[str] | None = None


class Column(Cell):
    """A column of a table: a head and its cells; with `minus` or `over`, a paired difference or ratio with another cell.

    `of` "other" is about what each row is set beside (its `other`), as is minus or over "other"; "both" is for a metric that is a
    number of two kinds of rows.
    """

    head: str = ""
    of: Literal["row", "other", "both"] = "row"
    minus: Cell | Literal["other"] | None = None
    over: Cell | Literal["other"] | None = None
    show: str = Field(
        default="", description="percent, points, plain or a number of digits; default: as the metric says"
    )


class Row(Cell):
    """A row of a table: its labels, what its cells have in common, and what it is set beside."""

    label: OneOrMore[str] = ""
    other: Cell | None = None


class TablePart(Part):
    """A table: rows times columns. `rows` are rows, or the names of what they run over, as in ["model", "tolerance"]."""

    title: str
    rows: tuple[str, ...] | tuple[Row, ...]
    columns: tuple[Column, ...]
    where: Cell = Field(default=Cell(), description="what all cells have in common")
    same_images: bool | Literal["row"] = Field(
        default=False,
        description="only the images that every row's attacks were tried on; or those of every column's, by row",
    )
    sort: str = Field(default="", description="head of the column that rows are sorted by, the largest number first")
    heads: tuple[str, ...] = Field(default=(), description="heads of the columns that label the rows")
    published: Mapping[str, tuple[float | None, ...]] = Field(
        default={}, description="numbers in print by the head of their column, one for each row"
    )
    source: str = Field(default="", description="where those stand")
    note: str = Field(default="", description="in which {images} stands for those that the table is about")


class Line(Cell):
    """A curve of a figure."""

    label: str = ""
    dash: Literal["-", "--", ":"] = "-"
    published: tuple[tuple[float, float], ...] = Field(
        default=(), description="numbers in print, each with its place along the axis; shares as such, not in percent"
    )
    other: Cell | None = Field(default=None, description="what a metric of two kinds of rows is set beside")


class FigurePart(Part):
    """A figure."""

    title: str
    kind: Literal["lines", "bars", "dots", "roc", "heat", "histogram", "trajectories"] = "lines"
    x: str = Field(default="tolerance", description="what runs along the horizontal axis")
    y: str = Field(default="", description="what the numbers are called")
    panels: bool = Field(default=True, description="of a ROC: one panel for each scale")
    bins: Count | None = Field(default=None, description="of a histogram")
    table: TablePart | None = Field(
        default=None, description="of dots: its rows from top to bottom, its columns as marks"
    )
    lines: tuple[Line, ...] = ()
    where: Cell = Cell()
    caption: str = ""


class ClaimPart(Part):
    """A sentence that two cells, or a cell and a number, confirm or not."""

    sentence: str
    left: Cell
    relation: Literal["<", ">", "="]
    right: Cell | float
    margin: float = Field(default=0.0, description="how much larger or smaller; for =, how far apart at most")


class Experiment(Part):
    """What `odefend evaluate` and `odefend study` run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="of the report and of its rows' labels")
    title: str = ""
    text: str = Field(default="", description="a paragraph that opens the report")
    data: Mapping[str, DataPart]
    models: Mapping[str, ModelPart]
    attacks: Mapping[str, AttackPart] = {}
    detectors: Mapping[str, DetectorPart] = {}
    measures: Mapping[str, MeasurePart] = {}
    derived: Mapping[str, DerivedPart] = {}
    tables: tuple[TablePart, ...] = ()
    figures: tuple[FigurePart, ...] = ()
    claims: tuple[ClaimPart, ...] = ()
    shard: Count = Field(default=50, description="images per piece of work: what is lost when stopped")
    seed: int = 0
