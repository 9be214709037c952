"""Queries on uploaded networks."""

from typing import Literal

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from mlhf_service.networks.models import Network


def get(
    session: Session, identity: str, lock: Literal["share", "update"] | None = None
) -> Network | None:
    """The network; with ``lock`` it stays as it is until the commit.

    Who makes runs of it locks in common, who deletes it alone.
    """
    statement = select(Network).where(Network.id == identity)
    if lock is not None:
        statement = statement.with_for_update(read=lock == "share")
        statement = statement.execution_options(populate_existing=True)
    return session.scalar(statement)


def search() -> Select[Network]:
    return select(Network)
