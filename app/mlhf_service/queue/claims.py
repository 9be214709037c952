"""Take the next waiting run: the one place where work is handed out.

Whose turn it is, is in ``queue.shares``; which job of theirs, in ``jobs.line``; which run of the
job, the first that waits. Limits hold because one claim is made at a time: on SQLite there is one
writer, and PostgreSQL has a lock for it, held for the few milliseconds of a claim.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Select,
    bindparam,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased, defer
from sqlalchemy.sql.dml import ReturningUpdate

from mlhf_service import measures
from mlhf_service.database import Database, UTCDateTime, db_now, now
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.line import LEVEL_SECONDS
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.state import claimed, settle
from mlhf_service.queue.leases import Claim, newest_checkpoint
from mlhf_service.queue.shares import host_of, in_turn, running, tenant_of, took_turn
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings
from mlhf_service.webhooks.events import has_any
from mlhf_service.workers.machine import memory_for_runs

_LOCK = 0x6D6C6863  # "mlhc": one claim at a time on PostgreSQL
_RESERVED_AFTER_SECONDS = 120.0


@dataclass(frozen=True)
class Limits:
    """What may run at once; None: no limit.

    Attributes:
        per_tenant: Runs of one tenant.
        per_key: Runs of one key.
        memory_bytes: What all runs on the claiming worker's host may be estimated to need.
    """

    per_tenant: int | None = None
    per_key: int | None = None
    memory_bytes: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Those of a worker on this machine."""
        return cls(
            per_tenant=settings.max_running_per_tenant,
            per_key=settings.max_running_per_key,
            memory_bytes=memory_for_runs(settings),
        )


def claim_next(
    database: Database,
    queue: str,
    owner: str,
    lease_seconds: float,
    limits: Limits | None = None,
    lacking: Collection[str] = (),
) -> Claim | None:
    """Take the next waiting run of ``queue``, or return None where none may start here and now.

    Runs on the data sets ``lacking`` here are left to workers that have them.

    In one transaction, a conditional update claims the run and starts its lease by the
    database's clock, and the curve is cut back to the checkpoint the run resumes from.
    """
    while True:
        with database.write() as session:
            if not database.is_sqlite:
                session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            job = _next_job(session, queue, host_of(owner), limits or Limits(), lacking)
            if job is None:
                return None
            run = _take(session, job, owner, lease_seconds, lacking)
            if run is not None:
                return _start(session, job, run, owner)
            settle(session, job)  # a worker of an earlier version left it in line
        # Look again.


def could_claim(
    database: Database, queue: str, host: str, limits: Limits, lacking: Collection[str] = ()
) -> bool:
    """Return whether ``claim_next`` would find a run now, on this host. Nothing is taken."""
    ready = Job.queue == queue, Job.ready_at.is_not(None), Job.ready_at <= db_now()
    with database.read() as session:
        if not session.scalar(select(exists().where(*ready))):
            return False
    with database.write() as session:
        return _next_job(session, queue, host, limits, lacking) is not None


def _next_job(
    session: Session, queue: str, host: str, limits: Limits, lacking: Collection[str]
) -> Job | None:
    """The job whose turn it is, locked."""
    now_running = running(session)
    free = None
    if limits.memory_bytes is not None:
        free = limits.memory_bytes - now_running.memory[host]
    here = {"in_queue": queue, "free": free, "memory": limits.memory_bytes}
    held: dict[str, Any] | None = None
    for share in in_turn(session, queue, now_running):
        if limits.per_key is not None and now_running.shares[share] >= limits.per_key:
            continue
        of_tenant = now_running.tenants[tenant_of(share)]
        if limits.per_tenant is not None and of_tenant >= limits.per_tenant:
            continue
        of_share = {**here, "share": share}
        less = free is not None and free < (limits.memory_bytes or 0)
        if less and session.scalar(_reserved(lacking), of_share) is not None:
            return None
        found = session.execute(_line(lacking, skip_locked=True), of_share).first()
        if found is not None:
            return jobs.locked(session, *found)
        held = of_share if held is None else held
    # Nothing is ready, or what is, others hold for the moment of a heartbeat: wait for the first.
    if held is None:
        return None
    found = session.execute(_line(lacking, skip_locked=False), held).first()
    return None if found is None else jobs.locked(session, *found)


def _first_in_line(lacking: Collection[str]) -> Select[Job]:
    """The first job of a share in line: of parameters ``in_queue`` and ``share``."""
    line = (
        select(Job)
        .where(
            Job.queue == bindparam("in_queue"),
            Job.share == bindparam("share"),
            Job.ready_at.is_not(None),
            Job.ready_at <= db_now(),
        )
        .order_by(Job.rank, Job.id)
        .limit(1)
        .options(defer(Job.spec))
    )
    if not lacking:
        return line
    return line.where(exists().where(Run.job_id == Job.id, *_waits(Run, lacking)))


def _fitting(lacking: Collection[str], *, skip_locked: bool) -> Select[Job, bool]:
    """That which needs no more memory than is ``free``; null: no limit. For ``jobs.locked``."""
    free: Any = bindparam("free", type_=BigInteger)
    fits = or_(free.is_(None), Job.memory_bytes <= free)
    line = _first_in_line(lacking).add_columns(has_any(Job.tenant)).where(fits)
    return line.with_for_update(skip_locked=skip_locked)


# Made once: making a statement takes as long as sending it.
_SKIPPING, _WAITING = (_fitting((), skip_locked=skip) for skip in (True, False))


def _line(lacking: Collection[str], *, skip_locked: bool) -> Select[Job, bool]:
    if lacking:
        return _fitting(lacking, skip_locked=skip_locked)
    return _SKIPPING if skip_locked else _WAITING


def _reserved(lacking: Collection[str]) -> Select[Job]:
    """A job that has waited long for more than is free, for which that is kept.

    Otherwise small runs, each of which fits now, would keep a large one out for ever.
    """
    free, memory = (bindparam(name, type_=BigInteger) for name in ("free", "memory"))
    large = _first_in_line(lacking).where(Job.memory_bytes > free, Job.memory_bytes <= memory)
    waited = db_now() - (Job.rank + LEVEL_SECONDS * Job.priority)
    return large.where(waited > _RESERVED_AFTER_SECONDS)


def _waits(run: Any, lacking: Collection[str]) -> list[ColumnElement[bool]]:
    """The conditions under which a run may start here."""
    here = [run.dataset.not_in(lacking)] if lacking else []
    return [run.status == "queued", run.available_at <= db_now(), *here]


def _taking(lacking: Collection[str]) -> ReturningUpdate[Run]:
    waiting = aliased(Run)
    first = (
        select(waiting.id)
        .where(waiting.job_id == bindparam("of_job"), *_waits(waiting, lacking))
        .order_by(waiting.position)
        .limit(1)
        .scalar_subquery()
    )
    return (
        update(Run)
        .where(Run.id == first, Run.status == "queued")
        .values(
            status="running",
            started_at=func.coalesce(Run.started_at, bindparam("present", type_=UTCDateTime())),
            attempt=Run.attempt + 1,
            lease_owner=bindparam("by"),
            lease_expires_at=db_now() + bindparam("lease", type_=Float),
            spool_offset=0,
        )
        .returning(Run)
        .execution_options(synchronize_session=False)
    )


_TAKING = _taking(())


def _take(
    session: Session, job: Job, owner: str, lease_seconds: float, lacking: Collection[str]
) -> Run | None:
    """Claim the job's first waiting run."""
    given = {"of_job": job.id, "by": owner, "lease": lease_seconds, "present": now()}
    taken: Run | None = session.scalar(_taking(lacking) if lacking else _TAKING, given)
    return taken


def _start(session: Session, job: Job, run: Run, owner: str) -> Claim:
    waited = time.time() - max(run.available_at, run.created_at.timestamp())
    measures.WAIT_SECONDS.labels(run.queue).observe(max(0.0, waited))
    took_turn(session, job.share)
    claimed(session, run)
    settle(session, job)
    return Claim(
        run_id=run.id,
        job_id=job.id,
        attempt=run.attempt,
        owner=owner,
        kind=run.kind,
        config=run.config,
        threads=(run.environment or {}).get("threads"),
        checkpoint=newest_checkpoint(session, run.id) if run.attempt > 1 else None,
        queue=run.queue,
        memory_bytes=job.memory_bytes,
        spent_seconds=(run.progress or {}).get("wall_seconds", 0.0),
        traceparent=job.traceparent,
    )
