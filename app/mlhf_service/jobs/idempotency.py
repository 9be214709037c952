"""Idempotency-Key: one creation a key, however often and from how many sides it is sent."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel
from sqlalchemy import String, delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from mlhf_service.database import Base, Database, UTCDateTime, now
from mlhf_service.kit.problems import Conflict, Invalid, Problem

_IN_FLIGHT = timedelta(seconds=60)  # longer, and the request that held the key has died
_KEPT = timedelta(days=7)


class IdempotencyKey(Base):
    """A key a client chose for one creation, and the job that came of it."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(40))  # null while in flight
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)


@contextmanager
def reserved(database: Database, key: str | None, request: BaseModel) -> Iterator[str | None]:
    """Hold ``key`` while ``request`` is answered; without a key, do nothing.

    Yields the job that a finished request with this key and body made, or None: the caller
    makes one, and calls ``complete`` in the same transaction. After a Problem the key is free.
    Raises Invalid (another body) and Conflict (still in flight).
    """
    if key is None:
        yield None
        return
    known = reserve(database, key, request_hash(request.model_dump(mode="json")))
    try:
        yield known
    except Problem:
        if known is None:
            _release(database, key)
        raise


def request_hash(body: Any) -> str:
    """SHA-256 of a JSON value in a canonical form."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def reserve(database: Database, key: str, hashed: str) -> str | None:
    """Take ``key`` in a transaction of its own; returns the job it stands for, if any."""
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


def complete(session: Session, key: str | None, job_id: str) -> None:
    """Bind the key, where there is one, to what was made."""
    known = session.get(IdempotencyKey, key) if key is not None else None
    if known is not None:
        known.job_id = job_id


def _release(database: Database, key: str) -> None:
    with database.write() as session:
        session.execute(
            delete(IdempotencyKey).where(IdempotencyKey.key == key, IdempotencyKey.job_id.is_(None))
        )
