"""Queries on webhooks and their deliveries."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Session

from mlhf_service.database import db_now
from mlhf_service.webhooks.models import PENDING, Webhook, WebhookDelivery


def get(session: Session, webhook_id: str) -> Webhook | None:
    return session.scalar(select(Webhook).where(Webhook.id == webhook_id))


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Webhook)) or 0


def deliveries(webhook_id: str, status: str | None) -> Select[WebhookDelivery]:
    statement = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    return statement.where(WebhookDelivery.status == status) if status else statement


def delivery(session: Session, webhook_id: str, delivery_id: str) -> WebhookDelivery | None:
    statement = deliveries(webhook_id, None).where(WebhookDelivery.id == delivery_id)
    return session.scalar(statement.with_for_update())


def due(session: Session, limit: int, busy: Collection[str]) -> list[str]:
    """The first due delivery of each enabled webhook, but for those that are ``busy``."""
    first = (
        select(WebhookDelivery.webhook_id, func.min(WebhookDelivery.id).label("id"))
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(
            WebhookDelivery.status == PENDING,
            WebhookDelivery.next_attempt_at <= db_now(),
            Webhook.disabled_at.is_(None),
        )
        .group_by(WebhookDelivery.webhook_id)
        .order_by(func.min(WebhookDelivery.id))
        .limit(limit + len(busy))
    )
    found = session.execute(first).all()
    return [row.id for row in found if row.webhook_id not in busy][:limit]


def take(
    session: Session, delivery_id: str, seconds: float
) -> tuple[Webhook, WebhookDelivery] | None:
    """Take a due delivery: for so long, no other sender does. None where one was faster."""
    taken = session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.id == delivery_id,
            WebhookDelivery.status == PENDING,
            WebhookDelivery.next_attempt_at <= db_now(),
        )
        .values(
            attempts=WebhookDelivery.attempts + 1,
            next_attempt_at=db_now() + seconds,
        )
        .execution_options(synchronize_session=False)
    )
    if taken.rowcount != 1:  # type: ignore[attr-defined]
        return None
    row = session.get(WebhookDelivery, delivery_id, populate_existing=True)
    webhook = session.get(Webhook, row.webhook_id) if row is not None else None
    return (webhook, row) if row is not None and webhook is not None else None


def forget_old(session: Session, before: datetime) -> None:
    """Delete deliveries that are over and were made before then."""
    old = WebhookDelivery.created_at < before, WebhookDelivery.status != PENDING
    session.execute(delete(WebhookDelivery).where(*old))
