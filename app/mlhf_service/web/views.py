"""What pages show beyond the API's own views."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from sqlalchemy.orm import Session

from mlhf_service.jobs import repository
from mlhf_service.jobs.models import Job, JobEvent
from mlhf_service.jobs.schemas import JobView
from mlhf_service.jobs.views import items, view
from mlhf_service.kit.flat import flat
from mlhf_service.runs import reading
from mlhf_service.runs import service as runs
from mlhf_service.runs.chunks import Head
from mlhf_service.runs.models import Run
from mlhf_service.runs.schemas import RunItem
from mlhf_service.runs.status import LOGGED, TERMINAL

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


def job_rows(
    session: Session, job_ids: Sequence[str], optimizer: str | None, most: int
) -> list[JobRow]:
    """Show jobs, each with the first of its runs; only those of ``optimizer``."""
    first = repository.first_runs(session, job_ids, most, optimizer)
    shown = {key: ([runs.item(run) for run in of], count) for key, (of, count) in first.items()}
    rows = []
    for job in items(session, job_ids):
        of, count = shown[job.id]
        rows.append(JobRow(job, of, (job.runs.total if count is None else count) - len(of)))
    return rows


def job_row(session: Session, job: Job) -> JobRow:
    """Show a job with all its runs."""
    return JobRow(view(session, job), [runs.item(run) for run in job.runs], 0)


def actions(job: JobView) -> list[str]:
    """What can be done with a job as it is now; the API has the last word."""
    possible = []
    if job.kind == LOGGED:
        return [] if job.status in TERMINAL else ["cancel"]
    if job.status in TERMINAL:
        if job.runs.succeeded < job.runs.total:
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


_SETTINGS = ("model", "dataset", "optimizer", "batch_size", "threads")


def parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that one tunes: names, and plain values by their path."""
    found: dict[str, Any] = {}
    for name in _SETTINGS:
        value = config.get(name)
        if isinstance(value, Mapping):
            found[name] = value.get("name")
            for path, text in flat(value.get("params") or {}):
                found[f"{name}.{path}"] = _plain(text)
        elif value is not None:
            found[name] = value
    return found


def _plain(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


_EVALUATED = ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "test_relative_l2")
_EVALUATIONS = 50
_LAST_CHUNKS = 8


@dataclass(frozen=True)
class Evaluation:
    seconds: float
    metrics: dict[str, float]


def evaluations(
    session: Session, run_id: str, heads: Sequence[Head]
) -> list[tuple[int, Evaluation]]:
    """The last evaluations of a run, by step: seconds of training, and what was measured."""
    found: dict[int, Evaluation] = {}
    # The last chunks have them: of a very long curve the rest is not read.
    for head in reversed(heads[-_LAST_CHUNKS:]):
        steps = head.first, head.last
        for series in reading.read(session, run_id, _EVALUATED, steps=steps, heads=[head]):
            step = series.step[-_EVALUATIONS:].tolist()
            seconds = series.wall_seconds[-_EVALUATIONS:].tolist()
            values = series.value[-_EVALUATIONS:].tolist()
            for place, at, value in zip(step, seconds, values, strict=True):
                found.setdefault(place, Evaluation(at, {})).metrics[series.metric] = value
        if len(found) >= _EVALUATIONS:
            break
    return sorted(found.items())[-_EVALUATIONS:]


def run_log(session: Session, run_id: str, job: Job, most: int) -> list[LogEntry]:
    """What the log of its job says of a run."""
    since = max(0, job.event_seq - most)
    events = repository.events_after(session, job.id, since, most, "log")
    return log_entries((one for one in events if one.data.get("run_id") == run_id), ())


def curl(base_url: str, body: dict[str, Any]) -> str:
    """The command that submits ``body`` to this service."""
    return (
        f"curl -s {quote(base_url + 'v1/jobs')} \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {quote(json.dumps(body))}"
    )
