"""Idempotency-Key: one creation a key, however often and from how many sides it is sent."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Select, String, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from mlhf_service.database import Base, Database, UTCDateTime, now
from mlhf_service.kit.problems import Conflict, Invalid, Problem
from mlhf_service.tenancy import OfTenant

_IN_FLIGHT = timedelta(seconds=60)  # longer, and the request that held the key has died
_KEPT = timedelta(days=7)


class IdempotencyKey(OfTenant, Base):
    """A key a client chose for one creation, and the job that came of it."""

    __tablename__ = "idempotency_keys"

    tenant: Mapped[str] = mapped_column(
        String(64), primary_key=True, default="local", server_default="local"
    )
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(40))  # null while in flight
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)


@contextmanager
def reserved(
    database: Database, key: str | None, document: Any, normalized: BaseModel | None = None
) -> Iterator[str | None]:
    """Hold ``key`` while ``document`` is answered; without a key, do nothing.

    Yields the job that a finished request with this key and body made, or None: the caller
    makes one, and calls ``complete`` in the same transaction. After a Problem the key is free.
    Raises Invalid (another body) and Conflict (still in flight).

    Args:
        document: The JSON that the client sent. What we make of it may differ in the next
            version, which must know a repeated request as such.
        normalized: What we made of it. Earlier versions compared that.
    """
    if key is None:
        yield None
        return
    formerly = None if normalized is None else request_hash(normalized.model_dump(mode="json"))
    known = reserve(database, key, request_hash(document), formerly)
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


def reserve(database: Database, key: str, hashed: str, formerly: str | None = None) -> str | None:
    """Take ``key`` in a transaction of its own; returns the job it stands for, if any.

    ``formerly`` is the hash that an earlier version has made of the same request.
    """
    try:
        with database.write() as session:
            session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < now() - _KEPT))
            known = session.scalar(_of(key).with_for_update())
            if known is None:
                session.add(IdempotencyKey(key=key, request_hash=hashed, created_at=now()))
                return None
            if known.request_hash not in (hashed, formerly):
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
    known = session.scalar(_of(key)) if key is not None else None
    if known is not None:
        known.job_id = job_id


def _of(key: str) -> Select[IdempotencyKey]:
    return select(IdempotencyKey).where(IdempotencyKey.key == key)


def _release(database: Database, key: str) -> None:
    with database.write() as session:
        session.execute(
            delete(IdempotencyKey).where(IdempotencyKey.key == key, IdempotencyKey.job_id.is_(None))
        )
