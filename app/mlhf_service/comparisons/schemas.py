"""What a comparison shows."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from mlhf.training.config import TargetMetric
from mlhf_service.runs.metrics import Number
from mlhf_service.runs.schemas import Position, TargetStatus
from mlhf_service.runs.status import Status

# What can be a target can be compared.
ComparedMetric = Literal[
    TargetMetric,
    "whole_train_loss",
    "whole_test_loss",
    "whole_train_accuracy",
    "whole_test_accuracy",
    "whole_train_relative_l2",
    "whole_test_relative_l2",
]


class Ratios(BaseModel):
    """This run's value over the best among the runs: 1 is the best. Null where undefined."""

    final_loss: float | None = None
    best_loss: float | None = None
    final_accuracy: float | None = None
    best_accuracy: float | None = None
    steps: float | None = None
    samples: float | None = None
    wall_seconds: float | None = None
    cpu_seconds: float | None = None


class Measure(BaseModel):
    """What a run reached in one metric."""

    final: Number | None = Field(
        description="The last value; of a run that goes on, so far. NaN if the run diverged."
    )
    best: float | None = Field(description="The best finite value.")
    final_ratio: float | None = Field(default=None, description="Over the best of the runs.")
    best_ratio: float | None = Field(default=None, description="Over the best of the runs.")


class ComparedRun(BaseModel):
    """One run of a comparison."""

    run_id: str
    job_id: str
    name: str
    status: Status
    group: str
    model: str
    dataset: str = Field(description="A built-in's name, or an upload's id.")
    dataset_name: str = Field(description="What people call it: an upload's name.")
    optimizer: str
    seed: int
    batch_size: int | None
    params: dict[str, Any] = Field(
        description="The configuration, flat: `optimizer.lr`, `model.hidden`, `batch_size`."
    )
    measures: dict[str, Measure] = Field(description="By metric; the split is in its name.")
    final_loss: Number | None = Field(description="Of the comparison's `loss_metric`.")
    best_loss: Number | None = Field(description="Of the comparison's `loss_metric`.")
    final_accuracy: Number | None = Field(description="Of the comparison's `accuracy_metric`.")
    best_accuracy: Number | None = Field(description="Of the comparison's `accuracy_metric`.")
    target_status: TargetStatus | None = Field(
        description="Null when there is no target. A run that has not ended of itself is "
        "`unfinished`, not `missed`."
    )
    to_target: Position | None = Field(
        description="What it took; null unless the target was reached."
    )
    diverged_at: Position | None = Field(
        description="The first step whose loss was not finite, if the run diverged."
    )
    processor_share: float | None = Field(
        description="Which fraction of its seconds of training the run had a processor; null "
        "where that was not counted."
    )
    ratio_to_best: Ratios


class Band(BaseModel):
    """A number over the seeds of a group; runs of one seed are averaged first."""

    n: int = Field(description="Seeds that have the number.")
    missing: int = Field(
        description="Seeds that ended without it; with any, mean and std are null."
    )
    unfinished: int = Field(
        description="Seeds that may yet have it, or were stopped before: they are in no mean."
    )
    mean: float | None
    std: float | None = Field(description="Of the sample (n - 1); null for a single seed.")
    min: float | None
    max: float | None


class ToTarget(BaseModel):
    """What it took a group's runs to reach the target."""

    reached: int = Field(description="Seeds that reached it.")
    missed: int = Field(description="Seeds that ended without; with any, the means are null.")
    unfinished: int = Field(
        description="Seeds that may yet reach it, or were stopped before: they are in no mean."
    )
    steps: Band
    samples: Band
    wall_seconds: Band
    cpu_seconds: Band


class MeasureBands(BaseModel):
    """One metric over the seeds of a group."""

    final: Band
    best: Band


class GroupCurve(BaseModel):
    """The metric over a group's seeds, at the steps that all of those with points measured."""

    seeds: int = Field(description="Seeds that have points.")
    steps: list[int]
    samples: list[float]
    epochs: list[float]
    wall_seconds: list[float] = Field(description="Mean over the seeds.")
    cpu_seconds: list[float | None] = Field(
        description="Mean over the seeds; null where one has none."
    )
    mean: list[float | None] = Field(description="Null where a run's value is not finite.")
    std: list[float | None]
    min: list[float | None]
    max: list[float | None]
    total_points: int
    downsampled: bool


class ComparedGroup(BaseModel):
    """Runs that differ only in their seed."""

    label: str
    run_ids: list[str]
    seeds: list[int] = Field(description="The different ones.")
    n: int = Field(description="How many different seeds there are.")
    repeats: int = Field(
        description="Runs beyond the first of their seed. They add nothing to n: runs of one "
        "configuration and seed are not independent, and are averaged before the seeds are."
    )
    measures: dict[str, MeasureBands] = Field(description="By metric; the split is in its name.")
    final_loss: Band
    best_loss: Band
    final_accuracy: Band
    best_accuracy: Band
    to_target: ToTarget | None = Field(description="Null when there is no target.")
    curve: GroupCurve


class Warning(BaseModel):
    """Why runs may not be comparable."""

    code: Literal[
        "hardware",
        "threads",
        "versions",
        "data",
        "batch_size",
        "model",
        "loss",
        "budget",
        "evaluation",
        "seeds",
        "single_seed",
        "repeats",
        "shared_machine",
        "cpu_seconds",
        "unfinished",
        "diverged",
        "not_measured",
    ]
    message: str
    run_ids: list[str]


class Comparison(BaseModel):
    """Runs side by side."""

    metric: ComparedMetric
    loss_metric: str = Field(
        description="What `final_loss` and `best_loss` are of: the compared metric, or the loss "
        "of the same split."
    )
    accuracy_metric: str = Field(
        description="What `final_accuracy` and `best_accuracy` are of: the compared metric, or "
        "`test_accuracy`."
    )
    target: float | None = Field(
        description="As asked for, else the target all the runs were given."
    )
    runs: list[ComparedRun]
    groups: list[ComparedGroup]
    warnings: list[Warning]
