"""What is shown of workers and of the queue."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class WorkerView(BaseModel):
    """A worker, which trains one run at a time."""

    id: str
    name: str
    queue: str
    version: str
    state: Literal["idle", "training", "unfit", "stopping", "silent"] = Field(
        description="`unfit`: it claims nothing, for the `reason` given. `silent`: it has not "
        "been heard of for a lease."
    )
    reason: str | None
    device: dict[str, Any]
    memory_bytes: int
    cores: int
    run_id: str | None = Field(description="What it trains, where that is yours.")
    seen_seconds_ago: float
    started_at: datetime
    host: str | None = Field(description="For administrators only.")
    pid: int | None = Field(description="For administrators only.")


class WorkerList(BaseModel):
    data: list[WorkerView]


class QueueDepth(BaseModel):
    """Runs of one queue and priority."""

    queue: str
    priority: int
    waiting: int = Field(description="Could start now.")
    later: int = Field(description="Wait for a time: a scheduled start, or after a fault.")
    running: int
    oldest_seconds: float | None = Field(description="How long the first of them has waited.")


class QueueView(BaseModel):
    """What waits and runs of the caller's tenant, and how many runs all tenants have waiting."""

    data: list[QueueDepth]
    waiting_in_all: int = Field(description="Of every tenant.")
    workers: dict[str, int] = Field(description="Workers that are there and can train, by queue.")
