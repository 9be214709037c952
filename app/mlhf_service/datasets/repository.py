"""Queries on uploaded data sets."""

from typing import Any, Literal

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session

from mlhf_service.datasets.models import Dataset
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import ACTIVE


def get(
    session: Session, dataset_id: str, lock: Literal["share", "update"] | None = None
) -> Dataset | None:
    """The data set, deleted or not; with ``lock`` it stays as it is until the commit.

    Who makes runs of it locks in common, who deletes it alone (PostgreSQL; on SQLite a
    writer is alone anyway): so no run is made of a data set that is being deleted.
    """
    statement = select(Dataset).where(Dataset.id == dataset_id)
    if lock is not None:
        statement = statement.with_for_update(read=lock == "share")
        statement = statement.execution_options(populate_existing=True)
    return session.scalar(statement)


def newest(session: Session, before: str | None, limit: int) -> list[Dataset]:
    """Those that are not deleted, from the newest to the oldest; ``before`` an id."""
    statement = select(Dataset).where(Dataset.deleted_at.is_(None))
    if before is not None:
        statement = statement.where(Dataset.id < before)
    return list(session.scalars(statement.order_by(Dataset.id.desc()).limit(limit)))


def in_use(session: Session, dataset_id: str) -> bool:
    """Whether a run that has not ended is to train on it."""
    used: Select[Any] = select(exists().where(Run.dataset == dataset_id, Run.status.in_(ACTIVE)))
    return bool(session.scalar(used))
