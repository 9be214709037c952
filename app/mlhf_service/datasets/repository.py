"""Queries on uploaded data sets."""

from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlhf_service.datasets.models import Dataset


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


def named(session: Session, name: str) -> list[Dataset]:
    """The uploads of this name that are not deleted, the newest first."""
    statement = select(Dataset).where(Dataset.name == name, Dataset.deleted_at.is_(None))
    return list(session.scalars(statement.order_by(Dataset.id.desc())))


def names(session: Session, limit: int = 200) -> list[str]:
    """Names of uploads that are not deleted, of the newest first."""
    return list(dict.fromkeys(dataset.name for dataset in newest(session, None, limit)))


def newest(session: Session, before: str | None, limit: int) -> list[Dataset]:
    """Those that are not deleted, from the newest to the oldest; ``before`` an id."""
    statement = select(Dataset).where(Dataset.deleted_at.is_(None))
    if before is not None:
        statement = statement.where(Dataset.id < before)
    return list(session.scalars(statement.order_by(Dataset.id.desc()).limit(limit)))
