"""What happens to jobs, written down together at the end of the transaction it happens in.

A transaction often has several events of one job: a run starts, and with it the job. They are
numbered by one update of the job's row and written by one insert.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, event, insert, update
from sqlalchemy.orm import Session

from mlhf_service.database import now
from mlhf_service.jobs.models import Job, JobEvent

_PENDING = "events_of_jobs"


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


@event.listens_for(Session, "before_commit")
def write(session: Session) -> None:
    """Number and write what was added.

    Raising the counter locks the job's row until the commit: numbers have no gaps and
    become visible in order, so a reader that has seen n never misses n - 1.
    """
    for job_id, happened in session.info.pop(_PENDING, {}).items():
        last = session.execute(
            update(Job)
            .where(Job.id == bindparam("of_job"))
            .values(event_seq=Job.event_seq + bindparam("more"), **happened.changes)
            .returning(Job.event_seq)
            .execution_options(synchronize_session=False),
            {"of_job": job_id, "more": len(happened.events)},
        ).scalar_one_or_none()
        if last is None:  # the job was deleted
            continue
        first = last - len(happened.events) + 1
        rows = [{"job_id": job_id, "seq": first + n, **e} for n, e in enumerate(happened.events)]
        session.execute(insert(JobEvent), rows)


@event.listens_for(Session, "after_soft_rollback")
def _forget(session: Session, _transaction: Any) -> None:
    session.info.pop(_PENDING, None)
