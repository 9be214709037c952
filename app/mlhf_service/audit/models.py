"""The table of the audit log."""

from datetime import datetime

from sqlalchemy import Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base, UTCDateTime
from mlhf_service.tenancy import OfTenant


class AuditEntry(OfTenant, Base):
    """One request that changed something or was refused. Nothing but age removes it.

    Attributes:
        tenant: Of the key; empty where nobody was known.
        route: The pattern of the route; null where there is none.
        path: Without its query, in which a client may have put a secret.
    """

    __tablename__ = "audit_log"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[datetime] = mapped_column(UTCDateTime)
    key_id: Mapped[str | None] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(200))
    address: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(64))
    method: Mapped[str] = mapped_column(String(10))
    route: Mapped[str | None] = mapped_column(String(200))
    path: Mapped[str] = mapped_column(String(300))
    status: Mapped[int] = mapped_column(Integer)

    __table_args__ = (Index(None, "tenant", "id"),)
