"""What is sent and answered to delete many things at once."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from mlhf.core.config import Strict
from mlhf_service.deletions.dependants import Dependant
from mlhf_service.jobs.kinds.registry import Kind
from mlhf_service.runs.query import MAX_LENGTH
from mlhf_service.runs.status import Status

MOST = 1000
Identity = Annotated[str, Field(pattern=r"^[a-z]{2,4}_[0-9a-z_]{1,36}$")]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]

RunQuery = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH, pattern=r"^[^\x00]+$")]


class JobFilter(Strict):
    """Which jobs are meant: those that meet every condition given."""

    status: list[Status] = Field(default_factory=list, description="Any of these.")
    kind: Kind | None = None
    tags: dict[str, str | None] = Field(
        default_factory=dict, description="All must match; null: whatever the value."
    )
    optimizer: Text | None = None
    model: Text | None = None
    dataset: Text | None = None
    q: Text | None = Field(None, description="Part of the name.")
    archived: bool | None = Field(None, description="Both when absent.")
    created_before: datetime | None = None

    @model_validator(mode="after")
    def _not_everything(self) -> "JobFilter":
        if not self.model_dump(exclude_defaults=True):
            raise ValueError("give at least one condition: an empty filter would mean all jobs")
        return self


class DeletionRequest(Strict):
    """What to delete: by ids of any kind, or the jobs or the runs that a filter finds."""

    ids: list[Identity] | None = Field(None, min_length=1, max_length=MOST)
    filter: JobFilter | None = None
    runs: RunQuery | None = Field(
        None, description="The runs that meet this filter, as in `GET /v1/runs`."
    )
    dry_run: bool = Field(True, description="Only say what would be deleted.")
    force: bool = Field(False, description="Also what ended things depend on.")
    cancel: bool = Field(False, description="Also what has not ended.")

    @model_validator(mode="after")
    def _one_way(self) -> "DeletionRequest":
        if sum(each is not None for each in (self.ids, self.filter, self.runs)) != 1:
            raise ValueError("give either ids, a filter of jobs, or runs")
        return self


class Kept(BaseModel):
    """What was not deleted, and why."""

    id: str
    type: str = Field(description="Of the problem, such as /problems/in-use.")
    detail: str
    dependants: list[Dependant] = Field(default_factory=list)


class DeletionReport(BaseModel):
    """What was deleted, or would be."""

    dry_run: bool
    deleted: list[str]
    kept: list[Kept]
    more: bool = Field(description=f"Whether the filter finds more: it takes {MOST} at once.")
