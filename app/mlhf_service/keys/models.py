"""The tables of keys and their secrets."""

from datetime import datetime

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from mlhf_service.database import Base, UTCDateTime
from mlhf_service.tenancy import OfTenant


class ApiKey(OfTenant, Base):
    """A key of a tenant. It stays when it is revoked: what was made with it names it."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    created_by: Mapped[str | None] = mapped_column(String(40))  # a key; null: the command line
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    quota_jobs: Mapped[int | None] = mapped_column(Integer)
    quota_queued_runs: Mapped[int | None] = mapped_column(Integer)
    quota_storage_bytes: Mapped[int | None] = mapped_column(BigInteger)

    secrets: Mapped[list["KeySecret"]] = relationship(
        order_by="KeySecret.created_at", cascade="all", back_populates="key"
    )

    __table_args__ = (Index(None, "tenant", "id"),)


class KeySecret(Base):
    """A secret of a key, as its SHA-256. A key that is rotated has two for a while."""

    __tablename__ = "api_key_secrets"

    lookup: Mapped[str] = mapped_column(String(16), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    key: Mapped[ApiKey] = relationship(back_populates="secrets")
