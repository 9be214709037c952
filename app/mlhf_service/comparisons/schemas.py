"""What a comparison shows."""

from typing import Literal

from pydantic import BaseModel, Field

from mlhf.training.config import TargetMetric
from mlhf_service.runs.metrics import Number
from mlhf_service.runs.schemas import Reached
from mlhf_service.runs.status import Status

# What can be a target can be compared.
ComparedMetric = TargetMetric


class Ratios(BaseModel):
    """This run's value over the best among the runs: 1 is the best. Null where undefined."""

    final_loss: float | None = None
    best_loss: float | None = None
    final_accuracy: float | None = None
    best_accuracy: float | None = None
    steps: float | None = None
    samples: float | None = None
    wall_seconds: float | None = None


class ComparedRun(BaseModel):
    """One run of a comparison."""

    run_id: str
    job_id: str
    name: str
    status: Status
    group: str
    model: str
    dataset: str
    optimizer: str
    seed: int
    batch_size: int | None
    final_loss: Number | None = Field(
        description="The compared metric; when that is an accuracy, the loss on the same set."
    )
    best_loss: Number | None
    final_accuracy: Number | None = Field(
        description="On the test set, unless the compared metric is another accuracy."
    )
    best_accuracy: Number | None
    to_target: Reached | None = Field(description="Null when the target was missed.")
    ratio_to_best: Ratios


class Band(BaseModel):
    """A number over the seeds of a group."""

    n: int = Field(description="Runs that have the number.")
    missing: int = Field(description="Runs that have not; with any, mean and std are null.")
    mean: float | None
    std: float | None = Field(description="Of the sample (n - 1); null for a single run.")
    min: float | None
    max: float | None


class ToTarget(BaseModel):
    """What it took a group's runs to reach the target."""

    missed: int = Field(description="Runs that did not reach it; with any, the means are null.")
    steps: Band
    samples: Band
    wall_seconds: Band


class GroupCurve(BaseModel):
    """The metric over a group's runs, at the steps that all of them measured."""

    steps: list[int]
    samples: list[float]
    epochs: list[float]
    wall_seconds: list[float] = Field(description="Mean over the runs.")
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
    seeds: list[int]
    n: int
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
        "budget",
        "evaluation",
        "seeds",
        "single_seed",
        "unfinished",
        "diverged",
        "not_measured",
    ]
    message: str
    run_ids: list[str]


class Comparison(BaseModel):
    """Runs side by side."""

    metric: ComparedMetric
    target: float | None = Field(
        description="As asked for, else the target all the runs were given."
    )
    runs: list[ComparedRun]
    groups: list[ComparedGroup]
    warnings: list[Warning]
