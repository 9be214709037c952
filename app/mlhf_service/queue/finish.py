"""End an attempt: the run's next status, from its trainer's terminal event or the lack of one."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from mlhf_service.database import db_now
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.jobs.state import move
from mlhf_service.kit.problems import document
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import DIVERGED

_MAX_BACKOFF_SECONDS = 30.0
# Failures that are the deployment's, or ours, and not of what was asked for.
OURS = {"package", "device", "disk", "internal"}


@dataclass(frozen=True)
class Outcome:
    """How a trainer ended: ``finished``, ``failed``, ``interrupted`` or ``lost``."""

    kind: str
    event: dict[str, Any]
    reason: str = ""


def end_attempt(session: Session, job: Job, run: Run, outcome: Outcome, max_attempts: int) -> None:
    """Move ``run`` to where its attempt leaves it. The job is locked; the caller settles."""
    if outcome.kind == "finished":
        if outcome.event["status"] == "succeeded":
            move(session, run, "succeeded")
        else:
            move(session, run, "failed", _diverged(outcome.event))
    elif outcome.kind == "failed":
        error = outcome.event["error"]
        status = 500 if error["type"] in OURS else 422
        body = document(status, error["type"], error["title"], error.get("detail"))
        move(session, run, "failed", body)
    elif job.desired == "cancel":
        move(session, run, "cancelled")
    elif outcome.kind == "interrupted":
        _wait(session, job, run, 0.0)
    else:
        _lost(session, job, run, outcome.reason, max_attempts)


def _lost(session: Session, job: Job, run: Run, reason: str, max_attempts: int) -> None:
    run.failures += 1
    data = {"run_id": run.id, "level": "warning", "message": f"attempt {run.attempt}: {reason}"}
    jobs.add_event(session, job.id, "log", data)
    if run.failures >= max_attempts:
        attempts = f"{run.failures} of {run.attempt} attempts did not end"
        detail = f"Given up: {attempts}. The last: {reason}"
        move(session, run, "failed", document(500, "lost", "The run was lost", detail))
    else:
        backoff = 0.0 if run.failures == 1 else 2.0 ** (run.failures - 2)
        _wait(session, job, run, min(backoff, _MAX_BACKOFF_SECONDS))


def _wait(session: Session, job: Job, run: Run, seconds: float) -> None:
    move(session, run, "paused" if job.desired == "pause" else "queued")
    run.available_at = db_now() + seconds
    if run.status == "queued":
        session.add(Outbox(queue=run.queue))


def _diverged(event: dict[str, Any]) -> dict[str, Any]:
    detail = event.get("reason") or "The loss or a parameter is no longer finite."
    return document(422, DIVERGED.rpartition("/")[2], "The run diverged", detail)
