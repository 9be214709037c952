"""What a client is shown of a job."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from mlhf.core.config import Strict
from mlhf_service.jobs.kinds.registry import Kind
from mlhf_service.jobs.kinds.requests import Notes
from mlhf_service.kit.problems import ProblemDocument
from mlhf_service.kit.text import PlainText
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


RUN_IDS_IN_LISTS = 20


class RunCounts(BaseModel):
    """How many runs of a job are in each state."""

    queued: int = 0
    running: int = 0
    paused: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        return sum(self.__dict__.values())


class JobView(BaseModel):
    """A job as clients see it."""

    id: str
    kind: Kind
    name: str
    tags: dict[str, str]
    project: str = Field(description="The name of its project; `default` if it has none.")
    notes: str | None = Field(description="Markdown, as it was written.")
    status: Status
    desired: Literal["cancel", "pause"] | None = Field(
        description="What was asked for and has not yet come about."
    )
    attempts: int = Field(description="The largest number of times one of its runs was started.")
    progress: Progress
    error: ProblemDocument | None
    run_ids: list[str] = Field(
        description=f"In lists of jobs the first {RUN_IDS_IN_LISTS}; the job itself, and "
        "`/v1/runs?job_id=`, name all. `runs` says how many there are."
    )
    runs: RunCounts
    priority: int
    start_at: datetime | None = Field(description="It does not start before this time.")
    max_parallel_runs: int | None
    waiting: str | None = Field(
        default=None,
        description="Why its next run has not started yet. Only where one job is asked for.",
    )
    spec: dict[str, Any]
    retried_from: str | None
    cloned_from: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    archived_at: datetime | None = Field(description="Hidden from lists since then.")


class LogLine(BaseModel):
    """One line of a job's log."""

    seq: int
    at: datetime
    run_id: str | None
    level: str
    message: str


class ProjectCreate(Strict):
    """A project to be made."""

    name: PlainText = Field(description="What jobs name it by; no two are called the same.")
    description: Notes | None = Field(default=None, description="Markdown, kept as written.")


class ProjectPatch(Strict):
    """What to change of a project; what is absent stays."""

    name: PlainText | None = Field(default=None, description="Another name; its jobs stay in it.")
    description: Notes | None = Field(default=None, description="Another description; null: none.")
    archived: bool | None = Field(
        default=None, description="`true`: hidden, and takes no new jobs; `false`: shown again."
    )


class ProjectView(BaseModel):
    """A project."""

    id: str = Field(description="Its id, `prj_…`.")
    name: str = Field(description="What jobs and filters name it by.")
    description: str | None = Field(description="Markdown, as it was written.")
    jobs: int = Field(description="How many jobs are in it.")
    created_at: datetime = Field(description="When it was made.")
    archived_at: datetime | None = Field(description="Since when it takes no new jobs.")
