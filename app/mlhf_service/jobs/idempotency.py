"""Idempotency-Key: one creation a key, however often and from how many sides it is sent."""

import hashlib
import json
from datetime import timedelta
from typing import Any

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from mlhf_service.database import Database, now
from mlhf_service.jobs.models import IdempotencyKey
from mlhf_service.kit.problems import Conflict, Invalid

_IN_FLIGHT = timedelta(seconds=60)  # longer, and the request that held the key has died
_KEPT = timedelta(days=7)


def request_hash(body: Any) -> str:
    """SHA-256 of a JSON value in a canonical form."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def reserve(database: Database, key: str, hashed: str) -> str | None:
    """Take ``key`` for a request, in a transaction of its own.

    Returns the job a finished request with this key and body made, or None: the caller
    has the key now, and must ``complete`` or ``release`` it.
    Raises Invalid (another body) and Conflict (still in flight).
    """
    try:
        with database.write() as session:
            session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now() - _KEPT))
            known = session.get(IdempotencyKey, key, with_for_update=True)
            if known is None:
                session.add(IdempotencyKey(key=key, request_hash=hashed, created_at=now()))
                return None
            if known.request_hash != hashed:
                raise Invalid("This Idempotency-Key was used with another body. Use a new key.")
            if known.job_id is not None:
                return known.job_id
            if known.created_at < now() - _IN_FLIGHT:
                known.created_at = now()
                return None
    except IntegrityError:  # another request inserted it at the same moment
        pass
    raise Conflict(
        "A request with this Idempotency-Key is still in flight. Try again.",
        headers={"Retry-After": "1"},
    )


def complete(session: Session, key: str, job_id: str) -> None:
    """Bind the key to what was made, in the transaction that made it."""
    known = session.get(IdempotencyKey, key)
    if known is not None:
        known.job_id = job_id


def release(database: Database, key: str) -> None:
    """Give the key back after a request that made nothing."""
    with database.write() as session:
        session.execute(
            delete(IdempotencyKey).where(IdempotencyKey.key == key, IdempotencyKey.job_id.is_(None))
        )
