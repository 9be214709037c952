"""What a client is shown of a job."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from mlhf.core.config import Strict
from mlhf_service.jobs.kinds.registry import Kind
from mlhf_service.kit.problems import ProblemDocument
from mlhf_service.runs.status import Status


class CloneRequest(Strict):
    """Fields of the specification to replace in the copy; the others stay."""

    changes: dict[str, Any] = Field(default_factory=dict)


class Progress(BaseModel):
    """How far a job is: sums over its runs, and the mean of their fractions.

    A run that failed or was cancelled counts as far as it came.
    """

    step: int = 0
    total_steps: int | None = None
    epoch: float = 0.0
    samples: int = 0
    fraction: float = 0.0
    eta_seconds: float | None = None


class RunCounts(BaseModel):
    """How many runs of a job are in each state."""

    queued: int = 0
    running: int = 0
    paused: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class JobView(BaseModel):
    """A job as clients see it."""

    id: str
    kind: Kind
    name: str
    tags: dict[str, str]
    status: Status
    desired: Literal["cancel", "pause"] | None = Field(
        description="What was asked for and has not yet come about."
    )
    attempts: int = Field(description="The largest number of times one of its runs was started.")
    progress: Progress
    error: ProblemDocument | None
    run_ids: list[str]
    runs: RunCounts
    spec: dict[str, Any]
    retried_from: str | None
    cloned_from: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class LogLine(BaseModel):
    """One line of a job's log."""

    seq: int
    at: datetime
    run_id: str | None
    level: str
    message: str
