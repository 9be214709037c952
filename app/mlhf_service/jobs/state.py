"""Change the status of runs, and of their job with them, in one place."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from mlhf_service.database import now
from mlhf_service.jobs import held, journal, line, repository, tally
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.transitions import allowed, job_status
from mlhf_service.runs.models import Run
from mlhf_service.runs.outcomes import diverged
from mlhf_service.runs.status import ACTIVE, TERMINAL
from mlhf_service.webhooks.events import announce


class IllegalTransitionError(RuntimeError):
    """A status change that no rule allows: a bug, never a user's mistake."""


def move(session: Session, run: Run, status: str, error: dict[str, Any] | None = None) -> None:
    """Put ``run`` into ``status``; the caller holds the job's lock.

    Leaving ``running`` gives up the lease. Call ``settle`` once all runs are moved.
    """
    if not allowed(run.status, status):
        raise IllegalTransitionError(f"run {run.id}: {run.status} -> {status}")
    # A job that is served goes back in line: see jobs.line.
    place = {"rank": line.after_service()} if "running" in (run.status, status) else {}
    run.status = status
    if status == "running":
        run.started_at = run.started_at or now()
    else:
        run.lease_owner = run.lease_expires_at = None
    if status in TERMINAL:
        run.finished_at = now()
        run.error = error
    _tell(session, run, error, place)


def claimed(session: Session, run: Run) -> None:
    """Record that a claim's conditional update has put ``run`` into ``running``."""
    _tell(session, run, None, {"rank": line.after_service()})


def _tell(
    session: Session, run: Run, error: dict[str, Any] | None, changes: Mapping[str, Any]
) -> None:
    data = {"run_id": run.id, "status": run.status, "attempt": run.attempt, "error": error}
    journal.add_event(session, run.job_id, "status", data, changes)
    said = {
        "id": run.id,
        "job_id": run.job_id,
        "name": run.name,
        "status": run.status,
        "attempt": run.attempt,
        "error": error,
    }
    announce(session, run.tenant, f"run.{run.status}", said)


def settle(session: Session, job: Job) -> None:
    """Let go what waited for runs that have ended, and update the job's status from its runs',
    and from when one of them may start.

    The caller holds the job's lock.
    """
    session.flush()
    held.release(session, job)
    counts, ready_at = repository.status_counts(session, job.id)
    most = job.max_parallel_runs
    job.ready_at = ready_at if most is None or counts["running"] < most else None
    # Why runs failed matters only once all have ended.
    over = not ACTIVE & counts.keys()
    failed = repository.failed_runs(session, job.id) if over and counts["failed"] else []
    status = job_status(counts, job.desired == "cancel", sum(map(diverged, failed)))
    if status in TERMINAL or (status == "paused" and job.desired == "pause"):
        job.desired = None
    if status == job.status:
        return
    if job.status in TERMINAL:
        raise IllegalTransitionError(f"job {job.id}: {job.status} -> {status}")
    if status in TERMINAL:
        with session.no_autoflush:  # the runs are flushed, and the job is written once
            job.tally = tally.count(session, [job.id])[job.id].stored()
        job.finished_at = now()
    if job.running_since is not None:
        job.worked_seconds += max(0.0, (now() - job.running_since).total_seconds())
    job.running_since = now() if status == "running" else None
    job.status = status
    if status == "running":
        job.started_at = job.started_at or now()
    if status == "failed":
        job.error = next((r.error for r in failed if r.error and not diverged(r)), None) or next(
            (r.error for r in failed if r.error), None
        )
    report(session, job)


def report(session: Session, job: Job) -> None:
    """Write down the job's status for those who follow it, and for webhooks."""
    journal.add_event(session, job.id, "status", repository.status_data(job))
    announce_status(session, job)


def announce_status(session: Session, job: Job) -> None:
    """Have webhooks told the job's status."""
    said = {"id": job.id, "name": job.name, "kind": job.kind, **repository.status_data(job)}
    announce(session, job.tenant, f"job.{job.status}", said)
