"""The table of retention rules."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Boolean, Float, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base, UTCDateTime
from mlhf_service.tenancy import TenantOwned


class RetentionRule(TenantOwned, Base):
    """One rule of a tenant. Whoever moves ``next_run_at`` on carries it out."""

    __tablename__ = "retention_rules"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    rule: Mapped[dict[str, Any]] = mapped_column(JSON)  # a schemas.Rule
    enabled: Mapped[bool] = mapped_column(Boolean)
    next_run_at: Mapped[float] = mapped_column(Float(53), default=0.0)  # by the database's clock
    last_run_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    last_result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (Index(None, "tenant", "id"),)
