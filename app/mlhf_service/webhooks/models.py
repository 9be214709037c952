"""Tables of webhooks and of what is to be delivered to them."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base, UTCDateTime
from mlhf_service.tenancy import OfTenant, TenantOwned

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"


class Webhook(TenantOwned, Base):
    """An address that a tenant wants events sent to."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    url: Mapped[str] = mapped_column(String(2000))
    description: Mapped[str] = mapped_column(String(200))
    events: Mapped[list[str]] = mapped_column(JSON)  # names, or patterns such as job.*
    metrics: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # of schemas.MetricCondition
    secret: Mapped[str] = mapped_column(String(100))
    # Signs too until then (seconds since 1970 by the database's clock), after a rotation.
    previous_secret: Mapped[str | None] = mapped_column(String(100))
    previous_until: Mapped[float | None] = mapped_column(Float(53))
    disabled_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    disabled_reason: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)

    __table_args__ = (Index(None, "tenant", "id"),)


class WebhookDelivery(OfTenant, Base):
    """One event for one webhook, written in the transaction in which the event happened.

    Its id is what the receiver is sent as ``webhook-id``, the same in every attempt. A
    sender that takes it moves ``next_attempt_at`` on, so that what dies with a sender is sent
    again.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(String(200))  # of the event: a webhook is sent it once
    type: Mapped[str] = mapped_column(String(60))
    body: Mapped[str] = mapped_column(Text)  # as it is sent and signed
    status: Mapped[str] = mapped_column(String(20), default=PENDING)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_attempt_at: Mapped[float] = mapped_column(Float(53), default=0.0)
    response_status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(String(500))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (
        Index(None, "webhook_id", "key", unique=True),
        Index(None, "status", "next_attempt_at"),
    )
