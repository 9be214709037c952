"""Queries on meta-checkpoints."""

from collections.abc import Iterable

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from mlhf_service.meta_checkpoints.models import MetaCheckpoint, MetaCheckpointAlias
from mlhf_service.runs.models import Run


def get(session: Session, identity: str) -> MetaCheckpoint | None:
    return session.get(MetaCheckpoint, identity)


def search(optimizer: str | None) -> Select[MetaCheckpoint]:
    statement = select(MetaCheckpoint)
    return statement.where(MetaCheckpoint.optimizer == optimizer) if optimizer else statement


def by_alias(session: Session, optimizer: str, alias: str) -> MetaCheckpoint | None:
    named = (MetaCheckpointAlias.optimizer == optimizer, MetaCheckpointAlias.alias == alias)
    return session.scalar(
        select(MetaCheckpoint)
        .join(MetaCheckpointAlias, MetaCheckpointAlias.meta_checkpoint_id == MetaCheckpoint.id)
        .where(*named)
    )


def aliases(session: Session) -> list[MetaCheckpointAlias]:
    return list(session.scalars(select(MetaCheckpointAlias).order_by(MetaCheckpointAlias.alias)))


def uses(session: Session, identities: Iterable[str]) -> dict[str, int]:
    """How many runs used each of these."""
    column = Run.meta_checkpoint_id
    statement = select(column, func.count()).where(column.in_(list(identities))).group_by(column)
    return {str(row[0]): row[1] for row in session.execute(statement)}
