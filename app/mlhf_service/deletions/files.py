"""Delete files after the commit that made them nobody's."""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import delete, exists, insert, or_, select, update
from sqlalchemy.orm import Session

from mlhf_service.database import Base, Database, db_now
from mlhf_service.deletions.models import DeletionHold, FileDeletion
from mlhf_service.kit.ids import new_id
from mlhf_service.storage.protocol import Storage

log = logging.getLogger(__name__)

_BATCH = 200
_HOLD_SECONDS = 60.0


def enqueue(session: Session, keys: Iterable[str], after_seconds: float | None = None) -> None:
    """Have files or folders deleted once this transaction has committed.

    Args:
        keys: Storage keys. What another row names stays.
        after_seconds: Delete them once more then, where a trainer that does not yet know that
            its run is gone may still write.
    """
    for key in keys:
        session.execute(insert(FileDeletion).values(storage_key=key))
        if after_seconds is not None:
            later = db_now() + after_seconds
            session.execute(insert(FileDeletion).values(storage_key=key, not_before=later))


def drain(database: Database, storage: Storage, limit: int = _BATCH) -> int:
    """Delete files that are due. Returns how many entries are done.

    Any number of processes may: to delete a file again is no error. Raises what the database
    or the store raises; what was not done is done by a later call.
    """
    with database.read() as session:
        if session.scalar(select(exists().where(DeletionHold.expires_at > db_now()))):
            return 0
        due = select(FileDeletion.id, FileDeletion.storage_key)
        due = due.where(FileDeletion.not_before <= db_now()).order_by(FileDeletion.id)
        rows = list(session.execute(due.limit(limit)))
    done = []
    try:
        for row in rows:
            _remove(database, storage, row.storage_key)
            done.append(row.id)
    finally:
        if done:
            with database.write() as session:
                session.execute(delete(FileDeletion).where(FileDeletion.id.in_(done)))
    return len(done)


def drain_soon(database: Database, storage: Storage, limit: int = _BATCH) -> None:
    """Delete what is due now, or leave it to the upkeep where that fails."""
    try:
        drain(database, storage, limit)
    except Exception as error:
        log.warning("files are deleted later: %s: %s", type(error).__name__, error)


def _remove(database: Database, storage: Storage, key: str) -> None:
    with database.read() as session:
        named = _named(session, key)
    if not named:
        storage.delete(key)
    elif key not in named:  # a folder, of which some files belong to others
        for entry in list(storage.list(key)):
            if entry.key not in named:
                storage.delete(entry.key)


def _named(session: Session, key: str) -> set[str]:
    """Which of the key and the keys below it are named by any row of any table."""
    found: set[str] = set()
    for table in Base.metadata.tables.values():
        if "storage_key" in table.c and table.name != FileDeletion.__tablename__:
            column = table.c.storage_key
            below = column.startswith(key + "/", autoescape=True)
            condition = or_(column == key, below)
            if "deleted_at" in table.c:
                condition &= table.c.deleted_at.is_(None)
            found |= set(session.scalars(select(column).where(condition)))
    return found


@contextmanager
def held(database: Database) -> Iterator[None]:
    """Hold off the deletion of files, for as long as this process lives and is in here."""
    identity, ended = new_id("hold"), threading.Event()
    with database.write() as session:
        values = {"id": identity, "expires_at": db_now() + _HOLD_SECONDS}
        session.execute(insert(DeletionHold).values(values))

    def renew() -> None:
        while not ended.wait(_HOLD_SECONDS / 4):
            try:
                with database.write() as session:
                    session.execute(
                        update(DeletionHold)
                        .where(DeletionHold.id == identity)
                        .values(expires_at=db_now() + _HOLD_SECONDS)
                        .execution_options(synchronize_session=False)
                    )
            except Exception as error:
                log.warning("the hold on deletions was not renewed: %s", error)

    thread = threading.Thread(target=renew, name="hold", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with database.write() as session:
            session.execute(
                delete(DeletionHold).where(
                    or_(DeletionHold.id == identity, DeletionHold.expires_at < db_now())
                )
            )
