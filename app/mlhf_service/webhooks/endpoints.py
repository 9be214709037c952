"""HTTP for webhooks."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, status
from sqlalchemy import select

from mlhf_service.api.dependencies import CurrentBackend, ReadSession, WriteSession
from mlhf_service.database import db_now
from mlhf_service.kit.pagination import Cursor, Limit, Order, Page, paginate
from mlhf_service.webhooks import repository, service
from mlhf_service.webhooks.models import Webhook, WebhookDelivery
from mlhf_service.webhooks.schemas import (
    DeliveryStatus,
    DeliveryView,
    WebhookCreate,
    WebhookPatch,
    WebhookView,
    WebhookWithSecret,
)

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

WebhookId = Annotated[
    str, Path(pattern=r"^wh_[0-9a-z]{1,36}$", description="Id of a webhook, `wh_…`.")
]
DeliveryId = Annotated[
    str, Path(pattern=r"^msg_[0-9a-z]{1,36}$", description="Id of a delivery, `msg_…`.")
]


@router.post("", status_code=status.HTTP_201_CREATED)
def create_webhook(
    request: WebhookCreate, response: Response, backend: CurrentBackend
) -> WebhookWithSecret:
    """Have events sent to an address, signed by Standard Webhooks.

    The answer holds the secret that signs; it is not shown again.
    """
    with backend.write() as context:
        made = service.create(context, request)
    response.headers["Location"] = f"/v1/webhooks/{made.id}"
    return made


@router.get("")
def list_webhooks(
    session: ReadSession, limit: Limit = 50, cursor: Cursor = None
) -> Page[WebhookView]:
    """List webhooks, the newest first."""
    order = Order(Webhook.id, Webhook.id, down=True)
    return paginate(session, select(Webhook), order, limit, cursor, service.view)


@router.get("/{webhook_id}")
def get_webhook(webhook_id: WebhookId, session: ReadSession) -> WebhookView:
    """One webhook."""
    return service.view(service.find(session, webhook_id))


@router.patch("/{webhook_id}")
def change_webhook(
    webhook_id: WebhookId, request: WebhookPatch, backend: CurrentBackend
) -> WebhookView:
    """Change what a webhook is sent, and where; disable it, or enable it again."""
    with backend.write() as context:
        return service.change(context, webhook_id, request)


@router.delete("/{webhook_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_webhook(webhook_id: WebhookId, session: WriteSession) -> None:
    """Delete a webhook with its deliveries."""
    service.remove(session, webhook_id)


@router.post("/{webhook_id}/rotate")
def rotate_secret(
    webhook_id: WebhookId,
    session: WriteSession,
    keep_seconds: Annotated[
        int, Query(ge=0, le=30 * 86_400, description="How long the old secret signs too.")
    ] = service.KEPT_SECRET_SECONDS,
) -> WebhookWithSecret:
    """Make a new secret. Until the old one ends, deliveries are signed with both."""
    return service.rotate(session, webhook_id, keep_seconds)


@router.post("/{webhook_id}/test", status_code=status.HTTP_202_ACCEPTED)
def test_webhook(webhook_id: WebhookId, session: WriteSession) -> DeliveryView:
    """Have an event `webhook.test` sent; its delivery says what came of it."""
    return service.test(session, webhook_id)


@router.get("/{webhook_id}/deliveries")
def list_deliveries(
    webhook_id: WebhookId,
    session: ReadSession,
    status: DeliveryStatus | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[DeliveryView]:
    """What was sent, or is to be sent, to a webhook, the newest first."""
    service.find(session, webhook_id)
    present = session.scalar(select(db_now())) or 0.0
    order = Order(WebhookDelivery.id, WebhookDelivery.id, down=True)
    statement = repository.deliveries(webhook_id, status)
    return paginate(
        session, statement, order, limit, cursor, lambda row: service.show(row, present)
    )


@router.post("/{webhook_id}/deliveries/{delivery_id}/retry", status_code=status.HTTP_202_ACCEPTED)
def retry_delivery(
    webhook_id: WebhookId, delivery_id: DeliveryId, session: WriteSession
) -> DeliveryView:
    """Have a delivery sent again, under the same id."""
    return service.send_again(session, webhook_id, delivery_id)
