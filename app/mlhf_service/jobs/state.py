"""Change the status of runs, and of their job with them, in one place."""

from typing import Any

from sqlalchemy.orm import Session

from mlhf_service.database import now
from mlhf_service.jobs import repository
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.transitions import allowed, job_status
from mlhf_service.runs.models import Run
from mlhf_service.runs.outcomes import diverged
from mlhf_service.runs.status import TERMINAL


class IllegalTransitionError(RuntimeError):
    """A status change that no rule allows: a bug, never a user's mistake."""


def move(session: Session, run: Run, status: str, error: dict[str, Any] | None = None) -> None:
    """Put ``run`` into ``status``; the caller holds the job's lock.

    Leaving ``running`` gives up the lease. Call ``settle`` once all runs are moved.
    """
    if not allowed(run.status, status):
        raise IllegalTransitionError(f"run {run.id}: {run.status} -> {status}")
    run.status = status
    if status == "running":
        run.started_at = run.started_at or now()
    else:
        run.lease_owner = run.lease_expires_at = None
    if status in TERMINAL:
        run.finished_at = now()
        run.error = error
    repository.add_event(
        session,
        run.job_id,
        "status",
        {"run_id": run.id, "status": status, "attempt": run.attempt, "error": error},
    )


def settle(session: Session, job: Job) -> None:
    """Update the job's status from its runs'. The caller holds the job's lock."""
    session.flush()
    runs = repository.runs_of(session, job.id)
    lost = sum(map(diverged, runs))
    status = job_status((r.status for r in runs), job.desired == "cancel", lost)
    if status in TERMINAL or (status == "paused" and job.desired == "pause"):
        job.desired = None
    if status == job.status:
        return
    if job.status in TERMINAL:
        raise IllegalTransitionError(f"job {job.id}: {job.status} -> {status}")
    job.status = status
    if status == "running":
        job.started_at = job.started_at or now()
    if status in TERMINAL:
        job.finished_at = now()
    if status == "failed":
        job.error = next((r.error for r in runs if r.error and not diverged(r)), None) or next(
            (r.error for r in runs if r.error), None
        )
    repository.add_event(session, job.id, "status", {"status": status, "error": job.error})
