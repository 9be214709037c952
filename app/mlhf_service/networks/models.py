"""The table of uploaded networks."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base, UTCDateTime
from mlhf_service.tenancy import TenantOwned


class Network(TenantOwned, Base):
    """A network that a user uploaded, checked in full before its row was written."""

    __tablename__ = "networks"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(250))
    sizes: Mapped[dict[str, Any]] = mapped_column(JSON)  # a mlhf.models.graph.sizes.GraphSizes
    weights: Mapped[bool] = mapped_column(Boolean)  # whether any came with it
    sha256: Mapped[str] = mapped_column(String(64))  # of its graph
    size: Mapped[int] = mapped_column(BigInteger)
    storage_key: Mapped[str] = mapped_column(String(400))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (Index(None, "tenant", "id"),)
