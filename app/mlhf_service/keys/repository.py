"""Queries on keys."""

from datetime import datetime

from sqlalchemy import ColumnElement, Select, or_, select, update
from sqlalchemy.orm import Session, joinedload, selectinload

from mlhf_service.database import now
from mlhf_service.keys.models import ApiKey, KeySecret


def get(session: Session, key_id: str, lock: bool = False) -> ApiKey | None:
    """A key with its secrets; with ``lock`` it stays as it is until the commit."""
    statement = select(ApiKey).where(ApiKey.id == key_id).options(selectinload(ApiKey.secrets))
    return session.scalar(statement.with_for_update() if lock else statement)


def search(with_ended: bool = True, tenant: str | None = None) -> Select[ApiKey]:
    statement = select(ApiKey).options(selectinload(ApiKey.secrets))
    if tenant is not None:
        statement = statement.where(ApiKey.tenant == tenant)
    return statement if with_ended else statement.where(*_usable())


def by_lookup(session: Session, lookup: str) -> KeySecret | None:
    """A secret with its key, whether they are still valid or not."""
    statement = select(KeySecret).where(KeySecret.lookup == lookup)
    return session.scalar(statement.options(joinedload(KeySecret.key)))


def is_there_an_admin(session: Session) -> bool:
    """Whether anybody can make keys by HTTP."""
    keys = session.scalars(select(ApiKey.scopes).where(*_usable()))
    return any("admin" in scopes for scopes in keys)


def touch(session: Session, key_id: str, at: datetime) -> None:
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=at))


def _usable() -> tuple[ColumnElement[bool], ...]:
    return (
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now()),
    )
