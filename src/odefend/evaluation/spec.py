"""An evaluation as data: what is attacked, how, and under what it is judged."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from odefend.attacks import Attack, Radius, named_attack
from odefend.defenses import LogUniform


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected characters that can be printed, in one line")
    return text


Words = Annotated[str, AfterValidator(_printable)]
Count = Annotated[int, Field(ge=1)]
Tolerance = Annotated[float, Field(gt=0)]
Gradient = Literal["unrolled", "exact", "torchdiffeq", "checkpoint", "adjoint"]


LEAST_CALIBRATION = 19
"""Calibration images without which nothing can alarm at 5 % false alarms: see `detectors.Calibration`."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Part):
    """Whose gradients an attack follows: another net, or the attacked one solved or differentiated otherwise."""

    net: str | None = Field(default=None, description="default: the net under attack")
    tolerance: Tolerance | None = Field(default=None, description="default: that under attack")
    gradient: Gradient = "unrolled"
    adjoint_tolerance: Tolerance | None = Field(
        default=None, description="of the adjoint; default: the source's tolerance"
    )
    method: str | None = Field(default=None, description="of the solver, such as rk4; default: the net's own")
    step: float | None = Field(default=None, description="its step size, for a method of fixed steps")


class Trial(_Part):
    """One attack, against the net and perhaps the control, at some tolerances and radii."""

    name: Words = Field(min_length=1, description="what tables call it")
    attack: str = Field(description="an attack or a preset: see `odefend attacks`")
    settings: dict[str, Any] = Field(default={}, description="of the attack, such as steps")
    epsilon: tuple[Radius, ...] = Field(
        default=(), description="radii, for an attack in a ball; more than one make a curve"
    )
    at: tuple[Tolerance, ...] = Field(default=(), description="tolerances attacked; default: the evaluation's")
    gradient: Gradient = "unrolled"
    source: Source | None = None
    images: Count | None = Field(default=None, description="the first so many only")
    control: bool = Field(default=False, description="also against the control")
    judged: Literal["where attacked", "everywhere", "matrix"] = Field(
        default="where attacked",
        description="by the attack itself only; at all tolerances, pushed on and beside noise; or at each tolerance attacked",
    )
    traced: bool = Field(
        default=False, description="follow the states of its images through the ODE, beside their originals"
    )
    beside: str | None = Field(
        default=None, description="another attack: if this one breaks images which that one does not, that one was weak"
    )

    def made(self) -> list[Attack]:
        """The attack at each radius."""
        if not self.epsilon:
            return [named_attack(self.attack, self.settings)]
        return [named_attack(self.attack, self.settings | {"epsilon": epsilon}) for epsilon in self.epsilon]


class Noise(_Part):
    """Gaussian input noise that changes clean images as much as each change of tolerance does."""

    draws: Count = 5
    grid: tuple[Annotated[float, Field(gt=0)], ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


class Vote(_Part):
    """A vote over tolerances drawn log-uniformly, and beside it one under noise of the same dose."""

    votes: Annotated[int, Field(ge=5)] = 20
    low: Tolerance = 1e-5
    high: Tolerance = 1e-1
    scales: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 1.05, 1.1, 1.25)

    @property
    def range(self) -> LogUniform:
        """What tolerances are drawn from."""
        return LogUniform(self.low, self.high)


class Published(_Part):
    """Numbers in print, to stand beside those that are measured: what a trial is said to reach."""

    source: Words = Field(min_length=1, description="where they stand")
    trial: str = Field(description="the trial that they are beside")
    control: bool = Field(default=False, description="about the control; then there is one number and no tolerance")
    epsilon: Radius | None = Field(default=None, description="the radius, for an attack in a ball")
    at: tuple[Tolerance, ...] = Field(default=(), description="the tolerances attacked, one for each number")
    success: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        min_length=1, description="shares of images broken"
    )
    mse: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), description="mean squared changes of a pixel, as many as there are successes"
    )


class Evaluation(_Part):
    """What `odefend evaluate` runs."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="of the report and of the rows' labels")
    title: Words = Field(default="", description="of the report")
    net: str = Field(description="the net in question: a name of the zoo or a .safetensors file")
    control: str | None = Field(
        default=None, description="a net without a solver: what it shows too is not owed to the ODE"
    )
    data: str = Field(description="one of odefend.DATASETS")
    images: Count = Field(description="test images attacked")
    sample: int | None = Field(
        default=None,
        description="seed by which images of each split are drawn; default: the first, which of MNIST are no sample",
    )
    clean: Count = Field(default=200, description="test images judged unattacked; at least those that are attacked")
    calibration: Count = Field(default=100, description="validation images that noise and thresholds are set by")
    tolerance: Tolerance = Field(default=1e-3, description="attacked at, unless a trial says otherwise")
    tolerances: tuple[Tolerance, ...] = Field(
        default=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), description="judged at"
    )
    scales: tuple[Annotated[float, Field(ge=1)], ...] = Field(
        default=(1.0, 1.02, 1.05, 1.1, 1.25, 1.5), description="adversarial perturbations are multiplied by"
    )
    epsilon: Radius | None = Field(default=None, description="the radius that sentences are about")
    trials: tuple[Trial, ...] = Field(min_length=1)
    noise: Noise | Literal[False] = Field(default=Noise(), description="false: none")
    vote: Vote | None = None
    published: tuple[Published, ...] = Field(default=(), description="numbers in print to stand beside these")
    shard: Count = Field(default=50, description="images per piece of work")
    seed: int = Field(default=0, ge=0, lt=2**63)

    def attacked_at(self, trial: Trial) -> tuple[float, ...]:
        """The tolerances that a trial attacks."""
        return trial.at or (self.tolerance,)

    def trial(self, name: str) -> Trial:
        """A trial by its name."""
        return next(one for one in self.trials if one.name == name)
