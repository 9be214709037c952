"""Rows that belong to a tenant, and sessions that see those of one tenant only.

The condition is added to every statement of a session by SQLAlchemy itself, so that a query
that forgets about tenants shows nothing of others.
"""

from typing import Any

from sqlalchemy import String, event
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, mapped_column, with_loader_criteria

_TENANT = "tenant"


class OfTenant:
    """A row of one tenant."""

    tenant: Mapped[str] = mapped_column(String(64), server_default="local")


class TenantOwned(OfTenant):
    """What a tenant owns.

    Attributes:
        tenant: Only its keys see the row. ``local`` is that of a service without keys.
        key_id: The key the row was made with; None without keys.
    """

    key_id: Mapped[str | None] = mapped_column(String(40))


class TenantSession(Session):
    """A session that reads and changes what one tenant owns, and nothing of others."""

    def __init__(self, *args: Any, tenant: str, **options: Any) -> None:
        super().__init__(*args, info={_TENANT: tenant}, **options)


@event.listens_for(TenantSession, "do_orm_execute")
def _only_own(state: ORMExecuteState) -> None:
    if state.is_column_load or state.is_relationship_load:
        return  # of a row that was found under the condition, which loaders keep
    tenant = state.session.info[_TENANT]
    state.statement = state.statement.options(
        with_loader_criteria(OfTenant, lambda cls: cls.tenant == tenant, include_aliases=True)
    )


@event.listens_for(TenantSession, "before_flush")
def _make_all_own(session: Session, *_: Any) -> None:
    for row in session.new:
        make_own(session, row)


def make_own(session: Session, row: object) -> None:
    """What is added without a word on its owner is the session's tenant's.

    Raises:
        ValueError: It is another tenant's.
    """
    tenant = session.info.get(_TENANT)
    if tenant is None or not isinstance(row, OfTenant):
        return
    row.tenant = row.tenant or tenant
    if row.tenant != tenant:
        raise ValueError(f"a row of tenant {row.tenant} in a session of {tenant}")
