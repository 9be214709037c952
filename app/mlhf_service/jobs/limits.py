"""HTTP for the limits of this deployment: what a job may ask for."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from mlhf_service.api.dependencies import CurrentSettings
from mlhf_service.jobs.kinds.requests import MAX_PRIORITY

router = APIRouter(tags=["catalogue"])


class Limits(BaseModel):
    """What is refused beyond these; each is a setting ``MLHF_<NAME>`` of the deployment."""

    max_wall_seconds: float = Field(description="A run is ended after this.")
    max_steps: int = Field(description="Of one run, however its budget is given.")
    max_threads: int | None = Field(description="null: the cores of the largest worker.")
    max_parameters: int
    max_memory_bytes: int = Field(description="The estimated peak of one run.")
    max_sweep_runs: int = Field(description="Runs of one job.")
    max_running_per_key: int | None = Field(description="Runs at once; null: no limit.")
    max_running_per_tenant: int | None
    max_priority: int = MAX_PRIORITY
    max_json_bytes: int
    max_upload_bytes: int
    max_expanded_bytes: int
    max_upload_entries: int
    quota_jobs: int | None = Field(description="Of a tenant, unless its key has its own.")
    quota_queued_runs: int | None
    quota_storage_bytes: int | None


@router.get("/limits")
def get_limits(settings: CurrentSettings) -> Limits:
    """The limits of this deployment."""
    return Limits.model_validate(settings, from_attributes=True)
