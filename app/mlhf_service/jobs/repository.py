"""Queries and locks on jobs and their runs."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, select, update
from sqlalchemy.orm import Session, selectinload

from mlhf_service.database import now
from mlhf_service.jobs.models import Job, JobEvent, JobTag
from mlhf_service.runs.models import Run


def get(session: Session, job_id: str) -> Job | None:
    return session.scalar(_with_parts().where(Job.id == job_id))


def lock(session: Session, job_id: str) -> Job | None:
    """The job, locked until the transaction ends. Always taken before its runs are changed,
    so that no two transactions wait for each other."""
    return session.scalar(
        select(Job)
        .where(Job.id == job_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def runs_of(session: Session, job_id: str) -> list[Run]:
    """The job's runs as they are now; take the job's lock first when they will be changed."""
    statement = select(Run).where(Run.job_id == job_id).order_by(Run.position)
    return list(session.scalars(statement.execution_options(populate_existing=True)))


def search(
    *,
    status: Iterable[str] = (),
    kind: str | None = None,
    tags: Iterable[tuple[str, str | None]] = (),
    optimizer: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    q: str | None = None,
) -> Select[Job]:
    """Select the jobs that meet every condition given."""
    conditions: list[ColumnElement[bool]] = []
    if statuses := list(status):
        conditions.append(Job.status.in_(statuses))
    if kind:
        conditions.append(Job.kind == kind)
    for key, value in tags:
        match = exists().where(JobTag.job_id == Job.id, JobTag.key == key)
        conditions.append(match.where(JobTag.value == value) if value is not None else match)
    for column, wanted in ((Run.optimizer, optimizer), (Run.model, model), (Run.dataset, dataset)):
        if wanted:
            conditions.append(exists().where(Run.job_id == Job.id, column == wanted))
    if q:
        conditions.append(Job.name.icontains(q, autoescape=True))
    return _with_parts().where(*conditions)


def add_event(session: Session, job_id: str, type_: str, data: dict[str, Any]) -> int:
    """Append an event and return its number.

    Raising the counter locks the job's row until the commit: numbers have no gaps and
    become visible in order, so a reader that has seen n never misses n - 1.
    """
    seq = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(event_seq=Job.event_seq + 1)
        .returning(Job.event_seq)
        .execution_options(synchronize_session=False)
    ).scalar_one()
    session.add(JobEvent(job_id=job_id, seq=seq, type=type_, data=data, at=now()))
    return int(seq)


def events_after(
    session: Session, job_id: str, after: int, limit: int, type_: str | None = None
) -> list[JobEvent]:
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    if type_ is not None:
        statement = statement.where(JobEvent.type == type_)
    return list(session.scalars(statement.order_by(JobEvent.seq).limit(limit)))


def _with_parts() -> Select[Job]:
    return select(Job).options(selectinload(Job.runs), selectinload(Job.tags))
