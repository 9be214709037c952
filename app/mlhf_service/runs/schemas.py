"""What a client is shown of runs."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from mlhf_service.runs.metrics import Axis, Number
from mlhf_service.runs.status import Status


class MetricSummary(BaseModel):
    """The last and the best value of one metric."""

    last: Number | None = None
    best: Number | None = None
    best_step: int | None = None


class Reached(BaseModel):
    """What it took to the first measurement at or beyond the target."""

    step: int
    samples: int
    epoch: float
    wall_seconds: float


class TargetView(BaseModel):
    """The target a run was given, and whether it got there."""

    metric: str
    value: float
    reached: Reached | None = Field(description="Null when it was missed, or not reached yet.")


class RunItem(BaseModel):
    """A run in a list."""

    id: str
    job_id: str
    position: int = Field(description="Place among the runs of its job.")
    name: str
    status: Status
    model: str
    dataset: str
    optimizer: str
    seed: int
    attempts: int = Field(description="How often it was started; more than 1 after a resume.")
    progress: dict[str, Any] | None
    summary: dict[str, MetricSummary] | None = Field(description="By metric, so far.")
    totals: dict[str, Any] | None = Field(
        description="Steps, samples, epochs; seconds of training, and apart from them those of "
        "evaluation, checkpoints and compiling."
    )
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunView(RunItem):
    """A run in full."""

    config: dict[str, Any] = Field(description="All that the training depends on.")
    environment: dict[str, Any] | None = Field(
        description="Device, versions, threads, data digest, seed; null until it has started."
    )
    data: dict[str, Any] | None = Field(description="Shapes and sizes of the data set.")
    target: TargetView | None
    metrics: list[str] = Field(description="What has been measured so far.")


class CurveSeries(BaseModel):
    """One metric's curve."""

    metric: str
    points: list[tuple[float, Number]] = Field(description="Pairs [x, value] by ascending step.")
    total_points: int
    downsampled: bool
    method: str | None = Field(description="How points were chosen, where some were left out.")


class Curves(BaseModel):
    """Curves of one run over one axis."""

    run_id: str
    x: Axis
    series: list[CurveSeries]


class ArtifactView(BaseModel):
    """A file a run left."""

    name: str
    kind: str
    step: int | None
    content_type: str
    size: int
    sha256: str
    created_at: datetime
    url: str


class ArtifactList(BaseModel):
    """All files of a run."""

    data: list[ArtifactView]
