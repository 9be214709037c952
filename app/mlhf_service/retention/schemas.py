"""What is sent and answered about retention rules."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from mlhf.core.config import Strict
from mlhf_service.deletions.schemas import Kept
from mlhf_service.jobs.kinds.registry import Kind
from mlhf_service.kit.text import PlainText

Ended = Literal["succeeded", "failed", "cancelled"]
Tags = Annotated[dict[str, str | None], Field(max_length=32)]


class Rule(Strict):
    """What is dropped: of the jobs that have ended and match, those to which *all* bounds apply.

    Bounds are `older_than_days`, `keep_newest` and `keep_bytes`; the others say which match.
    """

    target: Literal["jobs", "checkpoints"] = Field(
        "jobs", description="Whole jobs, or the checkpoints alone of their runs."
    )
    action: Literal["delete", "archive"] = "delete"
    status: list[Ended] = Field(default_factory=list, description="Any of these; all when empty.")
    kind: Kind | None = None
    tags: Tags = Field(default_factory=dict, description="All must be there; null: any value.")
    unless_tags: Tags = Field(
        default_factory=dict, description="Jobs with any of these are never dropped."
    )
    archived: bool | None = Field(None, description="Both when absent.")
    older_than_days: Annotated[float, Field(ge=0, le=36_500)] | None = Field(
        None, description="Since the end of the job."
    )
    keep_newest: Annotated[int, Field(ge=0, le=10**9)] | None = Field(
        None, description="So many of the matching jobs stay; of checkpoints, of each run."
    )
    keep_bytes: Annotated[int, Field(ge=0, le=2**62)] | None = Field(
        None, description="The newest matching jobs stay whose files fit in this."
    )

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.older_than_days is None and self.keep_newest is None and self.keep_bytes is None:
            raise ValueError("give older_than_days, keep_newest or keep_bytes")
        if self.target == "checkpoints" and self.action != "delete":
            raise ValueError("checkpoints can only be deleted")
        if self.target == "checkpoints" and self.keep_bytes is not None:
            raise ValueError("keep_bytes is for jobs")
        return self


class RuleCreate(Strict):
    name: PlainText
    rule: Rule
    enabled: bool = True


class RulePatch(Strict):
    """What to change; the rest stays."""

    name: PlainText | None = None
    rule: Rule | None = None
    enabled: bool | None = None


class Result(BaseModel):
    """What came of a rule."""

    dropped: int
    kept: list[Kept] = Field(description="What others depend on; the first twenty.")


class RuleView(BaseModel):
    id: str
    name: str
    rule: Rule
    enabled: bool
    last_run_at: datetime | None
    last_result: Result | None
    created_at: datetime


class Preview(BaseModel):
    """What a rule would drop now; what others depend on would yet be kept."""

    total: int
    bytes: int = Field(description="Of their files.")
    ids: list[str] = Field(description="Jobs, or run/file; the first hundred, the oldest first.")
