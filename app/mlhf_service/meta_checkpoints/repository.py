"""Queries on meta-checkpoints."""

from collections.abc import Iterable
from typing import Literal

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from mlhf_service.meta_checkpoints.models import MetaCheckpoint, MetaCheckpointAlias
from mlhf_service.runs.models import Run


def get(
    session: Session, identity: str, lock: Literal["share", "update"] | None = None
) -> MetaCheckpoint | None:
    """The meta-checkpoint; with ``lock`` it stays as it is until the commit.

    Who makes runs that use it locks in common, who deletes it alone.
    """
    statement = select(MetaCheckpoint).where(MetaCheckpoint.id == identity)
    if lock is not None:
        statement = statement.with_for_update(read=lock == "share")
        statement = statement.execution_options(populate_existing=True)
    return session.scalar(statement)


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


def alias_of(session: Session, optimizer: str, alias: str) -> MetaCheckpointAlias | None:
    named = (MetaCheckpointAlias.optimizer == optimizer, MetaCheckpointAlias.alias == alias)
    return session.scalar(select(MetaCheckpointAlias).where(*named))


def aliases(session: Session) -> list[MetaCheckpointAlias]:
    return list(session.scalars(select(MetaCheckpointAlias).order_by(MetaCheckpointAlias.alias)))


def uses(session: Session, identities: Iterable[str]) -> dict[str, int]:
    """How many runs used each of these."""
    column = Run.meta_checkpoint_id
    statement = select(column, func.count()).where(column.in_(list(identities))).group_by(column)
    return {str(row[0]): row[1] for row in session.execute(statement)}
