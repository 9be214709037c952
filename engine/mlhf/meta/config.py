"""What one meta-training run is, as data. Needs no torch: the service checks it too."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mlhf.core.config import (
    Component,
    DatasetSource,
    PositiveInt,
    Strict,
)
from mlhf.meta.moves import Move, locate_weight

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BatchSize = Annotated[int, Field(ge=2, le=65_536, strict=True)]


class TaskGrid(Strict):
    """Models × data × batch sizes × scales of the initialisation: each combination a task."""

    model: Component
    batch_sizes: list[BatchSize] = Field(default=[64], min_length=1, max_length=16)
    initial_scales: list[Positive] = Field(
        default=[1.0],
        min_length=1,
        max_length=16,
        description="Factors of the fresh weights; biases and norms keep theirs.",
    )

    @property
    def combinations(self) -> int:
        """How many tasks it stands for."""
        return len(self.batch_sizes) * len(self.initial_scales)


class TaskFamily(TaskGrid):
    """A grid of tasks on one data set. Only the training split is ever used."""

    dataset: DatasetSource


class BPTT(Strict):
    """Backpropagation through the unroll."""

    name: Literal["bptt"] = "bptt"


class PES(Strict):
    """Persistent evolution strategies (Vicol, Metz, Sohl-Dickstein 2021), antithetic pairs."""

    name: Literal["pes"] = "pes"
    pairs: Annotated[int, Field(ge=1, le=1024, strict=True)] = Field(
        default=4, description="Pairs of perturbed optimizers unrolled each iteration."
    )
    sigma: Positive = Field(default=0.01, description="Deviation of the perturbations.")
    horizon: PositiveInt = Field(
        default=100, description="Steps of a trajectory; then it starts anew."
    )


class Search(Strict):
    """Changes of single weights, compared on the same runs and kept where they help.

    A candidate that is not ahead after a seed's runs on all tasks has no more.
    """

    name: Literal["search"] = "search"
    seeds: Annotated[int, Field(ge=1, le=64, strict=True)] = Field(
        default=3, description="Runs of each candidate on each task, the same for all."
    )
    moves: list[Move] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Tried in turn; each is what is added to which weights, as in "
        '`{"step.weight.1.0": -0.8}` (row 1, column 0). Default: each weight up and down by '
        "`step`.",
    )
    step: Positive = 0.5
    margin: NonNegative = Field(
        default=1.0,
        description="A move is kept if the mean meta-loss falls by more than so many standard "
        "errors.",
    )

    @field_validator("moves")
    @classmethod
    def _known_weights(cls, moves: list[Move] | None) -> list[Move] | None:
        for i, move in enumerate(moves or []):
            if not move:
                raise ValueError(f"move {i} must name at least one weight")
            for name in move:
                locate_weight(name)
        return moves


Estimator = BPTT | PES | Search


class Replay(Strict):
    """Experience replay (paper, algorithm 3): where unrolls start."""

    keep: Fraction = Field(
        default=0.3, description="Probability that the next unroll goes on where this one ended."
    )
    capacity: Annotated[int, Field(ge=1, le=100_000, strict=True)] = Field(
        default=200, description="Starting points in the repository."
    )
    fresh: Fraction = Field(
        default=0.05, description="Probability that a restart is from a fresh initialisation."
    )
    exponent: NonNegative = Field(
        default=0.5, description="Starts are drawn by 1/rank to this power, worst error first."
    )


WHOLE_RUNS: dict[str, Any] = {
    "unroll": 300,
    "iterations": 100,
    "lr": 0.03,
    "weight_decay": 0.0,
    "clip": 0.0,
    "replay": {"fresh": 1.0},
    "estimator": {"name": "pes"},
}


def _evolved(values: dict[str, Any]) -> bool:
    optimizer, variant = values.get("optimizer", "mlhf"), values.get("variant", "kronecker")
    return bool(optimizer == "mlhf" and variant == "kronecker")


class MetaSettings(Strict):
    """How a learned optimizer is meta-trained, whatever the tasks and the machine."""

    optimizer: Literal["mlhf", "l2l"] = "mlhf"
    variant: Literal["kronecker", "paper"] = Field(
        default="kronecker", description="MLHF's form; `l2l` has none, and ignores it."
    )
    iterations: Annotated[int, Field(ge=1, le=10_000_000, strict=True)] = Field(
        default=1000,
        description="Meta-steps. Of `search`: candidates, the first being the start, if none were "
        "given up early; what those do not use, further ones do.",
    )
    unroll: Annotated[int, Field(ge=1, le=10_000, strict=True)] = Field(
        default=10,
        description="T: inner steps per meta-step. The Kronecker form's are whole runs: 300.",
    )
    pcg_iterations: Annotated[int, Field(ge=1, le=250, strict=True)] = 4
    lr: Positive = Field(default=1e-3, description="Adam's rate for the meta-parameters.")
    decay_at: list[Fraction] = Field(
        default=[0.6, 0.76, 0.88], description="Fractions of the run at which it is cut to 0.1."
    )
    weight_decay: NonNegative = Field(default=2e-7, description="L2 of the meta-parameters.")
    clip: NonNegative = Field(
        default=1.0,
        description="A network's meta-gradient is cut to this times its weights' norm; 0: never.",
    )
    step_clip: Positive = Field(
        default=0.25, description="An inner step is cut to this part of the weights' norm."
    )
    noise: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.02, description="Inner steps are multiplied by U(1 - noise, 1 + noise)."
    )
    replay: Replay = Field(default_factory=Replay)
    estimator: Annotated[Estimator, Field(discriminator="name")] = Field(default_factory=BPTT)
    start: str | None = Field(
        default=None, description="Meta-checkpoint to begin from: a path, or `default`."
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] = 0

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_variant(cls, values: Any) -> Any:
        """The Kronecker form learns few weights, from zero, by whole runs."""
        if isinstance(values, dict) and _evolved(values):
            values = {**WHOLE_RUNS, **values}
            estimator = values["estimator"]
            if isinstance(estimator, dict) and estimator.get("name") == "pes":
                values["estimator"] = {"horizon": values["unroll"], "sigma": 0.1, **estimator}
        return values

    @model_validator(mode="before")
    @classmethod
    def _type_of_estimator(cls, values: Any) -> Any:
        """Layers and schedules have a ``type``: an estimator may have one instead of a name."""
        # Runs before the validators above.
        given = values.get("estimator") if isinstance(values, dict) else None
        if isinstance(given, dict) and "type" in given and "name" not in given:
            rest = {key: value for key, value in given.items() if key != "type"}
            return {**values, "estimator": {"name": given["type"], **rest}}
        return values

    @field_validator("estimator")
    @classmethod
    def _whole_runs(cls, estimator: Estimator, info: ValidationInfo) -> Estimator:
        evolved, unroll = _evolved(info.data), info.data.get("unroll")
        if isinstance(estimator, Search):
            if not evolved:
                raise ValueError("`search` is for MLHF's Kronecker form: choose another estimator")
            return estimator
        if unroll is None or not evolved:  # no unroll: another field's mistake is reported already
            return estimator
        if not isinstance(estimator, PES) or estimator.horizon != unroll:
            raise ValueError(
                "MLHF's Kronecker form is meta-trained over whole runs: choose the estimator "
                "`pes` with a horizon equal to `unroll`, or `search`, or the variant `paper`"
            )
        return estimator

    @field_validator("clip")
    @classmethod
    def _no_clip_from_zero(cls, clip: float, info: ValidationInfo) -> float:
        if clip and _evolved(info.data):
            raise ValueError("clip must be 0 for the Kronecker form, whose weights begin at zero")
        return clip

    @model_validator(mode="after")
    def _horizon_holds_an_unroll(self) -> Self:
        if isinstance(self.estimator, PES) and self.estimator.horizon < self.unroll:
            raise ValueError("the horizon must hold at least one unroll")
        return self


def total_iterations(settings: MetaSettings, tasks: Sequence[TaskGrid]) -> int:
    """Return how many iterations the loop takes: those of ``search`` are single runs."""
    if not isinstance(settings.estimator, Search):
        return settings.iterations
    runs = settings.estimator.seeds * sum(task.combinations for task in tasks)
    return settings.iterations * runs


class MetaTrainConfig(MetaSettings):
    """One meta-training run, complete: the same config and seed give the same run."""

    tasks: list[TaskFamily] = Field(min_length=1, max_length=64)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = None
