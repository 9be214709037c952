"""Tables of meta-checkpoints and their aliases."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base, UTCDateTime
from mlhf_service.tenancy import OfTenant, TenantOwned


class MetaCheckpoint(TenantOwned, Base):
    """The weights of a learned optimizer, and where they come from."""

    __tablename__ = "meta_checkpoints"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(250))
    optimizer: Mapped[str] = mapped_column(String(100))  # a family: mlhf | mlhf_paper | l2l
    source: Mapped[str] = mapped_column(String(20))  # meta_train | upload
    job_id: Mapped[str | None] = mapped_column(String(40))
    run_id: Mapped[str | None] = mapped_column(String(40))
    parent_id: Mapped[str | None] = mapped_column(String(40))
    lineage: Mapped[dict[str, Any]] = mapped_column(JSON)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    storage_key: Mapped[str] = mapped_column(String(400))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (Index(None, "tenant", "id"),)


class MetaCheckpointAlias(OfTenant, Base):
    """A tenant's name for a meta-checkpoint of one family, such as ``default``; it can be moved."""

    __tablename__ = "meta_checkpoint_aliases"

    tenant: Mapped[str] = mapped_column(
        String(64), primary_key=True, default="local", server_default="local"
    )
    optimizer: Mapped[str] = mapped_column(String(100), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    meta_checkpoint_id: Mapped[str] = mapped_column(ForeignKey("meta_checkpoints.id"))
