"""What happens to jobs, written down together at the end of the transaction it happens in.

A transaction often has several events of one job: a run starts, and with it the job. They are
numbered by one update of the job's row and written by one insert. Where the transaction has
locked the job, that is the update by which its other changes are written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, event, insert, inspect, update
from sqlalchemy.orm import Session

from mlhf_service.database import now
from mlhf_service.jobs.models import Job, JobEvent

_PENDING, _LOCKED = "events_of_jobs", "locked_jobs"


@dataclass
class _Happened:
    """Of one job: its events in order, and changes of its row that come with them."""

    events: list[dict[str, Any]] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)


def add_event(
    session: Session,
    job_id: str,
    type_: str,
    data: dict[str, Any],
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Append an event at the end of the transaction; ``changes`` are made to the job's row too."""
    happened = session.info.setdefault(_PENDING, {}).setdefault(job_id, _Happened())
    happened.events.append({"type": type_, "data": data, "at": now()})
    happened.changes |= changes or {}


def is_locked(session: Session, job: Job) -> None:
    """Say that the transaction has locked this job, and read it anew, until it ends."""
    session.info.setdefault(_LOCKED, {})[job.id] = job


@event.listens_for(Session, "before_commit")
def write(session: Session) -> None:
    """Number and write what was added.

    Raising the counter locks the job's row until the commit: numbers have no gaps and
    become visible in order, so a reader that has seen n never misses n - 1.
    """
    locked: dict[str, Job] = session.info.pop(_LOCKED, {})
    for job_id, happened in session.info.pop(_PENDING, {}).items():
        count = len(happened.events)
        last = _count(session, job_id, count, happened.changes, locked.get(job_id))
        if last is None:  # the job was deleted
            continue
        events = enumerate(happened.events, last - count + 1)
        rows = [{"job_id": job_id, "seq": number, **each} for number, each in events]
        session.connection().execute(_ADD, rows)


_ADD = insert(JobEvent.__table__)  # type: ignore[arg-type]


def _count(
    session: Session, job_id: str, more: int, changes: Mapping[str, Any], locked: Job | None
) -> int | None:
    """Count so many more events of a job; returns the number of the last, None for no job."""
    # As long as it was not expired, as it is after its deletion; a commit flushes what is set.
    if locked is not None and "event_seq" in inspect(locked).dict:
        locked.event_seq += more
        for name, value in changes.items():
            setattr(locked, name, value)
        return locked.event_seq
    counted: int | None = session.execute(
        update(Job)
        .where(Job.id == bindparam("of_job"))
        .values(event_seq=Job.event_seq + bindparam("more"), **changes)
        .returning(Job.event_seq)
        .execution_options(synchronize_session=False),
        {"of_job": job_id, "more": more},
    ).scalar_one_or_none()
    return counted


@event.listens_for(Session, "after_soft_rollback")
def _forget(session: Session, _transaction: Any) -> None:
    session.info.pop(_PENDING, None)
    session.info.pop(_LOCKED, None)
