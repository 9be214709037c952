"""Queries on uploaded data sets."""

from typing import Any

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session

from app.datasets.models import Dataset
from app.runs.models import Run

UNFINISHED = ("queued", "running", "paused")


def get(session: Session, dataset_id: str) -> Dataset | None:
    """The data set, deleted or not."""
    return session.get(Dataset, dataset_id)


def present() -> Select[Any]:
    """All that are not deleted."""
    return select(Dataset).where(Dataset.deleted_at.is_(None))


def in_use(session: Session, dataset_id: str) -> bool:
    """Whether a run that has not ended is to train on it."""
    used: Select[Any] = select(
        exists().where(Run.dataset == dataset_id, Run.status.in_(UNFINISHED))
    )
    return bool(session.scalar(used))
