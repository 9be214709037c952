"""What can be done with webhooks. Nothing here commits: the request does, once."""

import re
from ipaddress import IPv6Address

import httpx
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from mlhf_service.context import Context
from mlhf_service.database import db_now, now
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.problems import Conflict, Invalid, NotFound
from mlhf_service.settings import Settings
from mlhf_service.webhooks import events, repository, signing
from mlhf_service.webhooks.addresses import is_public, literal
from mlhf_service.webhooks.models import PENDING, Webhook, WebhookDelivery
from mlhf_service.webhooks.schemas import (
    TEST_EVENT,
    DeliveryView,
    MetricCondition,
    WebhookCreate,
    WebhookPatch,
    WebhookView,
    WebhookWithSecret,
)

MOST = 50
_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
KEPT_SECRET_SECONDS = 86_400


def create(context: Context, request: WebhookCreate) -> WebhookWithSecret:
    check_url(context.settings, request.url)
    if repository.count(context.session) >= MOST:
        raise Conflict(f"There are {MOST} webhooks already: delete one first.")
    row = Webhook(
        id=new_id("wh"),
        tenant=context.caller.tenant,
        key_id=context.caller.key_id,
        url=request.url,
        description=request.description,
        events=list(dict.fromkeys(request.events)),
        metrics=[one.model_dump() for one in request.metrics],
        secret=signing.new_secret(),
        created_at=now(),
    )
    context.session.add(row)
    context.session.flush()
    return WebhookWithSecret(**view(row).model_dump(), secret=row.secret)


def change(context: Context, webhook_id: str, request: WebhookPatch) -> WebhookView:
    row = find(context.session, webhook_id)
    if request.url is not None:
        check_url(context.settings, request.url)
        row.url = request.url
    if request.description is not None:
        row.description = request.description
    if request.events is not None:
        row.events = list(dict.fromkeys(request.events))
    if request.metrics is not None:
        row.metrics = [one.model_dump() for one in request.metrics]
    if request.enabled is False and row.disabled_at is None:
        row.disabled_at, row.disabled_reason = now(), "its owner disabled it"
    if request.enabled:
        row.disabled_at = row.disabled_reason = None
        context.session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.status == PENDING)
            .values(attempts=0, next_attempt_at=0.0)
            .execution_options(synchronize_session=False)
        )
    return view(row)


def rotate(session: Session, webhook_id: str, keep_seconds: int) -> WebhookWithSecret:
    """Make a new secret; the present one signs too, for so long."""
    row = find(session, webhook_id)
    present = session.scalar(select(db_now())) or 0.0
    row.previous_secret = row.secret if keep_seconds else None
    row.previous_until = present + keep_seconds if keep_seconds else None
    row.secret = signing.new_secret()
    return WebhookWithSecret(**view(row).model_dump(), secret=row.secret)


def remove(session: Session, webhook_id: str) -> None:
    """Delete a webhook with its deliveries."""
    find(session, webhook_id)
    session.execute(delete(Webhook).where(Webhook.id == webhook_id))


def test(session: Session, webhook_id: str) -> DeliveryView:
    """Have a test event sent, whatever events the webhook wants."""
    row = find(session, webhook_id)
    if row.disabled_at is not None:
        raise Conflict("The webhook is disabled: enable it first.")
    (identity,) = events.add(session, [row], TEST_EVENT, {"webhook_id": webhook_id})
    return show(session.get_one(WebhookDelivery, identity), 0.0)


def send_again(session: Session, webhook_id: str, delivery_id: str) -> DeliveryView:
    """Have a delivery sent again, with all its attempts before it."""
    find(session, webhook_id)
    row = repository.delivery(session, webhook_id, delivery_id)
    if row is None:
        raise NotFound("There is no delivery of this id.")
    row.status, row.attempts, row.next_attempt_at = PENDING, 0, 0.0
    row.delivered_at = None
    return show(row, 0.0)


def find(session: Session, webhook_id: str) -> Webhook:
    row = repository.get(session, webhook_id)
    if row is None:
        raise NotFound("There is no webhook of this id.")
    return row


def check_url(settings: Settings, url: str) -> None:
    """Refuse what could never be sent to; names are resolved when a connection is made."""
    try:
        parsed = httpx.URL(url)
        host, sent = parsed.host, parsed.raw_host.decode()
        named = _NAME.fullmatch(sent) or isinstance(literal(sent), IPv6Address)
        usable = named and (parsed.port is None or 0 < parsed.port < 65_536)
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise Invalid.at("/url", "This is not a URL: use https://host/path.") from None
    private = host.lower() in settings.webhook_private
    if not usable or parsed.scheme not in (("http", "https") if private else ("https",)):
        raise Invalid.at("/url", "A webhook has the form https://host/path.")
    if parsed.userinfo or parsed.fragment or any(c.isspace() or ord(c) < 32 for c in url):
        raise Invalid.at("/url", "A webhook's URL has no user, password, fragment or spaces.")
    address = literal(host)
    if address is not None and not private and not is_public(address):
        raise Invalid.at("/url", f"{host} is not a public address.")


def view(row: Webhook) -> WebhookView:
    return WebhookView(
        id=row.id,
        url=row.url,
        description=row.description,
        events=row.events,
        metrics=[MetricCondition(**one) for one in row.metrics],
        enabled=row.disabled_at is None,
        disabled_reason=row.disabled_reason,
        created_at=row.created_at,
    )


def show(row: WebhookDelivery, present: float) -> DeliveryView:
    """A delivery as clients see it; ``present`` is the database's clock."""
    waits = max(0.0, row.next_attempt_at - present) if row.status == PENDING else None
    return DeliveryView.model_validate(
        {
            "id": row.id,
            "type": row.type,
            "status": row.status,
            "attempts": row.attempts,
            "response_status": row.response_status,
            "error": row.error,
            "next_attempt_in": waits,
            "created_at": row.created_at,
            "delivered_at": row.delivered_at,
            "body": row.body,
        }
    )
