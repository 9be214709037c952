"""The tables of uploaded networks, and of checks that workers are asked for."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, Index, String
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


class NetworkCheck(Base):
    """A check that an API without torch asks a worker's machine for (``by_worker``).

    It lasts as long as the request that waits for it, which deletes it. Times are seconds since
    1970 by the database's clock.
    """

    __tablename__ = "network_checks"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    storage_key: Mapped[str] = mapped_column(String(400))
    weights: Mapped[bool] = mapped_column(Boolean)
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Float(53))
    asked_at: Mapped[float] = mapped_column(Float(53))
    taken_by: Mapped[str | None] = mapped_column(String(40))
    taken_until: Mapped[float | None] = mapped_column(Float(53))
    # What mlhf.models.graph.examination.answer says.
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
