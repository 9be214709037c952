"""Write down what is to be delivered, in the transaction in which it happens."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, bindparam, event, exists, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from mlhf.core.metrics import parse_number
from mlhf_service.database import now
from mlhf_service.kit.ids import new_id
from mlhf_service.webhooks.models import PENDING, Webhook, WebhookDelivery
from mlhf_service.webhooks.schemas import METRIC_EVENT, MetricCondition

_KNOWN = "webhooks_of_tenants"


def announce(session: Session, tenant: str, name: str, data: dict[str, Any]) -> None:
    """Have an event sent to the webhooks of a tenant that want it.

    Args:
        name: Such as ``job.succeeded``.
        data: What the event says, as JSON.
    """
    wildcard = name.partition(".")[0] + ".*"
    wanting = [w for w in _enabled(session, tenant) if {name, wildcard} & set(w.events)]
    if wanting:
        add(session, wanting, name, data)


def check_metrics(
    session: Session, tenant: str, run: Mapping[str, Any], points: Sequence[Mapping[str, Any]]
) -> None:
    """Announce each condition that one of a run's points is the first to meet.

    Args:
        run: What is said of the run: id, job_id and name.
        points: Each with its ``step`` and its ``values`` by metric, as the trainer reports them.
    """
    for webhook in _enabled(session, tenant):
        for condition in map(MetricCondition.model_validate, webhook.metrics):
            met = _first(condition, points)
            if met is None:
                continue
            step, value = met
            data = {**run, "condition": condition.model_dump(), "step": step, "value": value}
            key = f"{run['id']}:{condition.metric}:{condition.when}:{condition.value}"
            add(session, [webhook], METRIC_EVENT, data, key)


def add(
    session: Session,
    webhooks: Iterable[Webhook],
    name: str,
    data: dict[str, Any],
    key: str | None = None,
) -> list[str]:
    """Add a delivery for each webhook; returns their ids.

    Args:
        key: Names the event: a webhook that has been sent it, or will be, is not sent it again.
    """
    happened = now()
    payload = {"type": name, "timestamp": happened.isoformat(), "data": data}
    body = json.dumps(payload, separators=(",", ":"))
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    insert: Any = sqlite.insert if is_sqlite else postgresql.insert
    made = []
    for webhook in webhooks:
        identity = new_id("msg")
        made.append(identity)
        session.execute(
            insert(WebhookDelivery)
            .values(
                id=identity,
                tenant=webhook.tenant,
                webhook_id=webhook.id,
                key=key or identity,
                type=name,
                body=body,
                status=PENDING,
                attempts=0,
                next_attempt_at=0.0,
                created_at=happened,
            )
            .on_conflict_do_nothing(index_elements=["webhook_id", "key"])
        )
    return made


_OF_TENANT = (Webhook.tenant == bindparam("of_tenant"), Webhook.disabled_at.is_(None))
_ENABLED = select(Webhook).where(*_OF_TENANT)
# Most tenants have none, which the connection tells sooner than the session.
_HAS_ENABLED = select(Webhook.__table__.c.id).where(*_OF_TENANT).limit(1)


def has_any(tenant: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether a tenant has webhooks, as a column for a query that is sent anyway."""
    return exists().where(Webhook.tenant == tenant, Webhook.disabled_at.is_(None))


def has_none(session: Session, tenant: str) -> None:
    """Say that a query of this transaction has found ``has_any`` to be false."""
    session.info.setdefault(_KNOWN, {}).setdefault(tenant, [])


def _enabled(session: Session, tenant: str) -> list[Webhook]:
    """Read once a transaction, however much happens in it."""
    known = session.info.setdefault(_KNOWN, {})
    if tenant not in known:
        named = {"of_tenant": tenant}
        has = session.connection().execute(_HAS_ENABLED, named).first() is not None
        known[tenant] = list(session.scalars(_ENABLED, named)) if has else []
    found: list[Webhook] = known[tenant]
    return found


@event.listens_for(Session, "after_commit")
@event.listens_for(Session, "after_rollback")
def _forget(session: Session) -> None:
    session.info.pop(_KNOWN, None)


def _first(
    condition: MetricCondition, points: Sequence[Mapping[str, Any]]
) -> tuple[int, float | str] | None:
    for point in points:
        value = point["values"].get(condition.metric)
        if value is not None and condition.met_by(parse_number(value)):
            return point["step"], value
    return None
