"""Queries on the runs that are written through."""

from collections.abc import Sequence

from sqlalchemy import exists, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from mlhf_service.database import db_now
from mlhf_service.mirrors.models import MirroredRun
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import ACTIVE


def enlist(session: Session, since: str) -> None:
    """Note the runs that have not ended, and those made after the newest that is noted.

    Args:
        since: The id from which on runs are meant where none is noted yet; ids sort by time.
    """
    newest = session.scalar(select(func.max(MirroredRun.run_id))) or since
    new = or_(Run.status.in_(ACTIVE), Run.id > newest)
    known = exists().where(MirroredRun.run_id == Run.id)
    chosen = select(Run.id, literal(0.0), literal(0), literal(False)).where(new, ~known)
    columns = ["run_id", "due_at", "failures", "done"]
    session.execute(insert(MirroredRun).from_select(columns, chosen))


def due(session: Session, limit: int) -> Sequence[str]:
    """Ids of runs to look at, those that have waited longest first; not of runs that wait."""
    found = (
        select(MirroredRun.run_id)
        .join(Run, Run.id == MirroredRun.run_id)
        .where(
            MirroredRun.done.is_(False),
            MirroredRun.due_at <= db_now(),
            Run.status.not_in(["queued", "paused"]),
        )
        .order_by(MirroredRun.due_at)
        .limit(limit)
    )
    return session.scalars(found).all()


def take(session: Session, run_id: str, seconds: float) -> bool:
    """Take a run that is due: for so long no other process does. False where one was faster."""
    taken = session.execute(
        update(MirroredRun)
        .where(
            MirroredRun.run_id == run_id,
            MirroredRun.done.is_(False),
            MirroredRun.due_at <= db_now(),
        )
        .values(due_at=db_now() + seconds)
    )
    return bool(taken.rowcount == 1)  # type: ignore[attr-defined]


def put_back(session: Session, run_id: str, seconds: float, **values: object) -> None:
    """Look at a run again after so long."""
    session.execute(
        update(MirroredRun)
        .where(MirroredRun.run_id == run_id)
        .values(due_at=db_now() + seconds, **values)
    )


def failures(session: Session, run_id: str) -> int:
    known = select(MirroredRun.failures).where(MirroredRun.run_id == run_id)
    return session.scalar(known) or 0


def written(session: Session, run_id: str) -> str | None:
    return session.scalar(select(MirroredRun.written).where(MirroredRun.run_id == run_id))
