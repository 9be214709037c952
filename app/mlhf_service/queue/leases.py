"""What a worker has claimed: renew its lease, and refuse writes without one."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Float, bindparam, select, update
from sqlalchemy.orm import Session, defer

from mlhf_service.database import Database, db_now
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.models import Job
from mlhf_service.runs import chunks
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.webhooks.events import has_any


class FencedError(Exception):
    """The claim no longer holds: another attempt has the run, or it has ended."""


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint a run resumes from."""

    step: int
    name: str
    storage_key: str
    size: int
    sha256: str


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
    queue: str = "cpu"
    memory_bytes: int = 0  # its estimated peak; 0: not known
    spent_seconds: float = 0.0  # of training, in earlier attempts
    traceparent: str | None = None  # of the request that made its job


def newest_checkpoint(session: Session, run_id: str) -> Checkpoint | None:
    """The checkpoint that a run resumes from; its curve is cut back to there."""
    latest = session.scalar(
        select(Artifact)
        .where(Artifact.run_id == run_id, Artifact.kind == "checkpoint")
        .order_by(Artifact.step.desc())
        .limit(1)
    )
    checkpoint = None
    after = -1
    if latest is not None and latest.step is not None:
        checkpoint = Checkpoint(
            latest.step, latest.name, latest.storage_key, latest.size, latest.sha256
        )
        after = latest.step
    # Steps after the checkpoint are trained, and their points written, again.
    chunks.cut_back(session, run_id, after)
    return checkpoint


def renew(database: Database, claim: Claim, lease_seconds: float) -> str | None:
    """Renew the lease, and nothing else; returns what the user wants of the job.

    The job is not locked: a long write of the attempt's own does not hold up its lease.
    Raises FencedError if the claim no longer holds.
    """
    with database.write() as session:
        extend(session, claim, lease_seconds)
        desired: str | None = session.scalar(select(Job.desired).where(Job.id == claim.job_id))
        return desired


_HELD = (
    Run.id == bindparam("of_run"),
    Run.status == "running",
    Run.attempt == bindparam("of_attempt"),
    Run.lease_owner == bindparam("of_owner"),
)
_EXTEND = (
    update(Run)
    .where(*_HELD)
    .values(lease_expires_at=db_now() + bindparam("lease", type_=Float))
    .execution_options(synchronize_session=False)
)
# The job first: see ``jobs.lock``. As an update locks: rows that name the run can be added.
_HOLD = (
    select(Job, has_any(Job.tenant), Run, db_now())
    .join(Run, Run.job_id == Job.id)
    .where(*_HELD)
    .with_for_update(of=[Job, Run], key_share=True)
    .options(defer(Job.spec))
    .execution_options(populate_existing=True)
)


def hold(session: Session, claim: Claim, lease_seconds: float) -> tuple[Job, Run]:
    """Lock the claimed run and its job, and renew the lease: the fence before every write.

    The lease is written with what else changes of the run, when the session is flushed.

    Raises FencedError if the claim no longer holds; the caller then writes nothing.
    """
    found = session.execute(_HOLD, _of(claim)).first()
    if found is None:
        raise FencedError(f"run {claim.run_id}, attempt {claim.attempt}")
    job, has_webhooks, run, present = found
    run.lease_expires_at = present + lease_seconds
    return jobs.locked(session, job, has_webhooks), run


def extend(session: Session, claim: Claim, lease_seconds: float) -> None:
    """Let the lease last so long from now, within a transaction. Raises FencedError."""
    held = session.execute(_EXTEND, {**_of(claim), "lease": lease_seconds})
    if held.rowcount != 1:  # type: ignore[attr-defined]
        raise FencedError(f"run {claim.run_id}, attempt {claim.attempt}")


def _of(claim: Claim) -> dict[str, Any]:
    return {"of_run": claim.run_id, "of_attempt": claim.attempt, "of_owner": claim.owner}
