"""Queries about workers."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from mlhf_service.database import db_now
from mlhf_service.workers.models import UNFIT, Worker


def beat(session: Session, fields: dict[str, Any]) -> None:
    """Write a worker's row, seen now. ``fields`` are all columns but ``seen_at``."""
    present = {**fields, "seen_at": db_now()}
    updated = session.execute(
        update(Worker)
        .where(Worker.id == fields["id"])
        .values(present)
        .execution_options(synchronize_session=False)
    )
    if updated.rowcount == 0:  # type: ignore[attr-defined]
        session.execute(insert(Worker).values(present))


def remove(session: Session, worker_id: str) -> None:
    """Forget a worker that has stopped."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def alive(session: Session, lease_seconds: float, queue: str | None = None) -> Sequence[Worker]:
    """The workers that were seen within a lease, the oldest first."""
    statement = select(Worker).where(Worker.seen_at > db_now() - lease_seconds)
    if queue is not None:
        statement = statement.where(Worker.queue == queue)
    return session.scalars(statement.order_by(Worker.id)).all()


def fit(session: Session, lease_seconds: float, queue: str) -> Sequence[Worker]:
    """The workers of a queue that are there and can train."""
    return [w for w in alive(session, lease_seconds, queue) if w.state != UNFIT]


def forget_silent(session: Session, seconds: float) -> int:
    """Delete the rows of workers not seen for that long. Returns how many."""
    gone = session.execute(delete(Worker).where(Worker.seen_at < db_now() - seconds))
    return int(gone.rowcount)  # type: ignore[attr-defined]


def forget_all(session: Session) -> None:
    """For a supervisor that knows no worker is alive."""
    session.execute(delete(Worker))
