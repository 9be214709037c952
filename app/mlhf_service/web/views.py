"""What pages show beyond the API's own views."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from shlex import quote
from typing import Any

from mlhf_service.jobs.models import Job, JobEvent
from mlhf_service.jobs.schemas import JobView
from mlhf_service.jobs.views import view
from mlhf_service.runs import service as runs
from mlhf_service.runs.models import Run
from mlhf_service.runs.schemas import RunItem
from mlhf_service.runs.status import TERMINAL

FIRST_JOB: dict[str, Any] = {
    "kind": "sweep",
    "name": "first comparison on handwritten digits",
    "model": {"name": "mlp", "params": {"hidden": [64, 32]}},
    "dataset": {"name": "digits"},
    "optimizers": [{"name": "momentum"}, {"name": "adam"}, {"name": "hf_adam"}],
    "seeds": [0, 1],
    "budget": {"epochs": 10},
    "target": {"metric": "train_loss", "value": 0.1},
}


@dataclass(frozen=True)
class JobRow:
    """A job in the list, with the first of its runs."""

    job: JobView
    runs: list[RunItem]
    more: int


def job_row(job: Job, optimizer: str | None = None, most: int | None = None) -> JobRow:
    """Show a job with its runs; only those of ``optimizer``, at most ``most``."""
    matching = [run for run in job.runs if optimizer in (None, run.optimizer)]
    shown = [runs.item(run) for run in matching[:most]]
    return JobRow(view(job), shown, len(matching) - len(shown))


def actions(job: JobView) -> list[str]:
    """What can be done with a job as it is now; the API has the last word."""
    possible = []
    if job.status in TERMINAL:
        if job.runs.succeeded < len(job.run_ids):
            possible.append("retry")
    elif job.desired != "cancel":
        paused = job.status == "paused" or job.desired == "pause"
        possible += ["resume" if paused else "pause", "cancel"]
    return [*possible, "clone"]


@dataclass(frozen=True)
class LogEntry:
    at: str
    level: str
    run: str
    message: str


def log_entries(events: Iterable[JobEvent], runs_of_job: Iterable[Run]) -> list[LogEntry]:
    """Log lines, each with the place of its run in the job."""
    places = {run.id: f"#{run.position}" for run in runs_of_job}
    return [
        LogEntry(
            at=f"{event.at:%H:%M:%S}",
            level=event.data.get("level", "info"),
            run=places.get(event.data.get("run_id") or "", ""),
            message=event.data.get("message", ""),
        )
        for event in events
    ]


def curl(base_url: str, body: dict[str, Any]) -> str:
    """The command that submits ``body`` to this service."""
    return (
        f"curl -s {quote(base_url + 'v1/jobs')} \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {quote(json.dumps(body))}"
    )
