"""Look at the workers and at the queue."""

from typing import Any

from sqlalchemy import ColumnElement, case, extract, func, select
from sqlalchemy.orm import Session

from mlhf_service.context import ADMIN, Context
from mlhf_service.database import db_now
from mlhf_service.jobs.models import Job
from mlhf_service.operations.schemas import QueueDepth, QueueView, WorkerView
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import LOGGED
from mlhf_service.workers import repository as workers
from mlhf_service.workers.models import Worker


def listed(context: Context) -> list[WorkerView]:
    """Every worker that is known, those that are silent too, the oldest first."""
    session = context.session
    rows = list(session.scalars(select(Worker).order_by(Worker.queue, Worker.id)))
    present = session.scalar(select(db_now())) or 0.0
    training = [row.run_id for row in rows if row.run_id]
    # The session of a tenant finds its own runs only.
    own = set(session.scalars(select(Run.id).where(Run.id.in_(training))))
    told = context.caller.may(ADMIN)
    lease = context.settings.lease_seconds
    return [
        WorkerView.model_validate(
            {
                "id": row.id,
                "name": row.name,
                "queue": row.queue,
                "version": row.version,
                "state": row.state if row.seen_at > present - lease else "silent",
                "reason": row.reason,
                "device": row.device,
                "memory_bytes": row.memory_bytes,
                "cores": row.cores,
                "run_id": row.run_id if row.run_id in own else None,
                "seen_seconds_ago": max(0.0, present - row.seen_at),
                "started_at": row.started_at,
                "host": row.host if told else None,
                "pid": row.pid if told else None,
            }
        )
        for row in rows
    ]


def queue(context: Context) -> QueueView:
    """How much waits, by queue and priority, and for how long."""
    session = context.session
    ready = (Run.status == "queued") & (Run.available_at <= db_now())
    created = extract("epoch", Run.created_at)
    since = case((Run.available_at > created, Run.available_at), else_=created)
    oldest = func.min(case((ready, since)))
    found = session.execute(
        select(
            Run.queue,
            Job.priority,
            _count(ready).label("waiting"),
            _count((Run.status == "queued") & (Run.available_at > db_now())).label("later"),
            _count(Run.status == "running").label("running"),
            (db_now() - oldest).label("oldest"),
        )
        .join(Job, Job.id == Run.job_id)
        .where(Run.status.in_(("queued", "running")), Run.kind != LOGGED)
        .group_by(Run.queue, Job.priority)
        .order_by(Run.queue, Job.priority.desc())
    ).all()
    depths = [
        QueueDepth(
            queue=row.queue,
            priority=row.priority,
            waiting=row.waiting,
            later=row.later,
            running=row.running,
            oldest_seconds=max(0.0, float(row.oldest)) if row.waiting else None,
        )
        for row in found
    ]
    return QueueView(data=depths, waiting_in_all=_of_all(session), workers=_fit(context))


def _count(condition: ColumnElement[bool]) -> Any:
    return func.sum(case((condition, 1), else_=0))


def _of_all(session: Session) -> int:
    """Of every tenant: by the table itself, which the session's tenant does not limit."""
    runs = Run.__table__
    waiting = runs.c.status == "queued", runs.c.available_at <= db_now()
    return session.scalar(select(func.count()).select_from(runs).where(*waiting)) or 0


def _fit(context: Context) -> dict[str, int]:
    lease = context.settings.lease_seconds
    names = {row.queue for row in workers.alive(context.session, lease)}
    return {name: len(workers.fit(context.session, lease, name)) for name in sorted(names)}
