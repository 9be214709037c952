"""Claim a run, renew its lease, and refuse writes without one."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from mlhf_service.database import Database, db_now
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.state import move, settle
from mlhf_service.runs.models import Artifact, Point, Run


class FencedError(Exception):
    """The claim no longer holds: another attempt has the run, or it has ended."""


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint a run resumes from."""

    step: int
    name: str
    storage_key: str


@dataclass(frozen=True)
class Claim:
    """A run that one worker has claimed. ``attempt`` fences all it writes."""

    run_id: str
    job_id: str
    attempt: int
    owner: str
    kind: str
    config: dict[str, Any]
    threads: int | None
    checkpoint: Checkpoint | None


def claim_next(database: Database, queue: str, owner: str, lease_seconds: float) -> Claim | None:
    """Take the next waiting run of ``queue``, or return None when there is none.

    In one transaction, a conditional update claims the run and starts its lease by the
    database's clock, and the curve is cut back to the checkpoint the run resumes from.
    """
    while True:
        with database.write() as session:
            found = session.execute(_next(queue)).first()
            if found is None:
                return None
            run_id, job_id = found
            taken = session.execute(
                update(Run)
                .where(Run.id == run_id, Run.status == "queued")
                .values(
                    attempt=Run.attempt + 1,
                    lease_owner=owner,
                    lease_expires_at=db_now() + lease_seconds,
                    spool_offset=0,
                )
                .execution_options(synchronize_session=False)
            )
            if taken.rowcount == 1:  # type: ignore[attr-defined]
                return _start(session, run_id, job_id, owner)
        # Another worker was faster between our look and our lock: look again.


def _next(queue: str) -> Any:
    """The oldest waiting run, its job's row locked; jobs that others hold are skipped."""
    return (
        select(Run.id, Run.job_id)
        .join(Job, Job.id == Run.job_id)
        .where(Run.status == "queued", Run.queue == queue, Run.available_at <= db_now())
        .order_by(Run.created_at, Run.job_id, Run.position)
        .limit(1)
        .with_for_update(of=Job, skip_locked=True)
    )


def _start(session: Session, run_id: str, job_id: str, owner: str) -> Claim:
    run = session.get_one(Run, run_id)
    job = session.get_one(Job, job_id)
    move(session, run, "running")
    settle(session, job)
    latest = session.scalar(
        select(Artifact)
        .where(Artifact.run_id == run_id, Artifact.kind == "checkpoint")
        .order_by(Artifact.step.desc())
        .limit(1)
    )
    checkpoint = None
    after = -1
    if latest is not None and latest.step is not None:
        checkpoint = Checkpoint(latest.step, latest.name, latest.storage_key)
        after = latest.step
    # Steps after the checkpoint are trained, and their points written, again.
    session.execute(delete(Point).where(Point.run_id == run_id, Point.step > after))
    return Claim(
        run_id=run_id,
        job_id=job_id,
        attempt=run.attempt,
        owner=owner,
        kind=run.kind,
        config=run.config,
        threads=(run.environment or {}).get("threads"),
        checkpoint=checkpoint,
    )


def hold(session: Session, claim: Claim, lease_seconds: float) -> tuple[Job, Run]:
    """Lock the claimed run and renew its lease: the fence before every write.

    Raises FencedError if the claim no longer holds; the caller then writes nothing.
    """
    job = jobs.lock(session, claim.job_id)
    held = session.execute(
        update(Run)
        .where(
            Run.id == claim.run_id,
            Run.status == "running",
            Run.attempt == claim.attempt,
            Run.lease_owner == claim.owner,
        )
        .values(lease_expires_at=db_now() + lease_seconds)
        .execution_options(synchronize_session=False)
    )
    if job is None or held.rowcount != 1:  # type: ignore[attr-defined]
        raise FencedError(f"run {claim.run_id}, attempt {claim.attempt}")
    return job, session.get_one(Run, claim.run_id, populate_existing=True)
