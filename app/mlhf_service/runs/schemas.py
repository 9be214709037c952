"""What a client is shown of runs."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from mlhf_service.runs.metrics import Axis, Number
from mlhf_service.runs.status import Status

TargetStatus = Literal["reached", "missed", "unfinished", "not_measured"]


class MetricSummary(BaseModel):
    """The last and the best value of one metric."""

    last: Number | None = None
    best: Number | None = None
    best_step: int | None = None


class Position(BaseModel):
    """How far a training was."""

    step: int
    samples: int
    epoch: float
    wall_seconds: float = Field(description="Of training alone.")
    cpu_seconds: float | None = Field(
        default=None,
        description="CPU seconds of training, of all threads; null in runs from before they "
        "were counted.",
    )

    def on(self, x: Axis) -> float | None:
        """Its place on an axis of curves; None if it has none there."""
        places: dict[Axis, float | None] = {
            "steps": self.step,
            "samples": self.samples,
            "epochs": self.epoch,
            "wall_seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
        }
        return places[x]


class TargetView(BaseModel):
    """The target a run was given, and whether it got there."""

    metric: str
    value: float
    status: TargetStatus = Field(
        description="`missed`: the run ended by its budget, or diverged, without reaching it. "
        "`unfinished`: it has not reached it, and may yet, or was stopped before. "
        "`not_measured`: the run does not measure this metric."
    )
    reached: Position | None = Field(
        description="The first measurement at or beyond it; null unless the status is `reached`."
    )


class RunItem(BaseModel):
    """A run in a list."""

    id: str
    job_id: str
    position: int = Field(description="Place among the runs of its job.")
    name: str
    status: Status
    held: bool = Field(
        description="Waits until its job has tried the settings of its optimizer (`tune`). Until "
        "then its parameters are those of the first."
    )
    model: str
    dataset: str = Field(description="A built-in's name, or an upload's id.")
    dataset_name: str = Field(description="What people call it: an upload's name.")
    optimizer: str
    seed: int
    project: str | None = Field(description="The name of its job's project.")
    tags: dict[str, str]
    notes: str | None = Field(description="Markdown, as it was written.")
    params: dict[str, Any] = Field(
        description="The configuration, flat, by the names that filters and sorting use: "
        "`optimizer.lr`, `model.hidden`, `batch_size`."
    )
    attempts: int = Field(description="How often it was started; more than 1 after a resume.")
    progress: dict[str, Any] | None = Field(
        description="How far it is, in steps, samples, epochs and seconds of training; where it "
        "diverged, to there."
    )
    summary: dict[str, MetricSummary] | None = Field(description="By metric, so far.")
    totals: dict[str, Any] | None = Field(
        description="Steps, samples, epochs; seconds and CPU seconds of training, and apart "
        "from them seconds of evaluation, checkpoints and compiling. `processor_share`: which "
        "fraction of the seconds of training the run had a processor. Absent: not counted."
    )
    diverged_at: Position | None = Field(
        description="The first step whose loss was not finite, if the run diverged."
    )
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    archived_at: datetime | None = Field(description="Hidden from lists since then.")


FieldKind = Literal["attribute", "param", "metric", "total", "tag"]


class RunField(BaseModel):
    """What runs can be filtered and sorted by."""

    name: str = Field(description="As filters, `sort` and `columns` write it.")
    kind: FieldKind = Field(description="Where its values come from.")
    type: Literal["number", "text"] = Field(description="How its values are compared.")


class RunFields(BaseModel):
    """All that the runs here can be filtered and sorted by."""

    data: list[RunField] = Field(description="Attributes first, then the others by name.")


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
    total_points: int = Field(description="How many there are, in the window of steps if any.")
    downsampled: bool
    unplaced: int = Field(
        description="Points that are not given because they have no place on the axis: CPU "
        "seconds were not counted when they were measured."
    )
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
    size: int | None = Field(description="In bytes; null until the file is first asked for.")
    sha256: str | None = Field(description="Null until the file is first asked for.")
    created_at: datetime | None = Field(
        description="Null: the file is made of the run's curves when it is first asked for, "
        "and kept."
    )
    url: str


class ArtifactList(BaseModel):
    """All files of a run."""

    data: list[ArtifactView]
