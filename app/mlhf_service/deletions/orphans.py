"""Files of the store that no row names: left by attempts that were fenced, and by crashes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import PurePosixPath

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from mlhf_service.database import Base, Database, db_now
from mlhf_service.deletions.models import DeletionHold, FileDeletion
from mlhf_service.runs.models import Run
from mlhf_service.storage.protocol import Entry, Storage

_BATCH = 200  # files looked up at once


@dataclass
class Swept:
    """What was deleted, or would be."""

    files: int = 0
    size: int = 0  # bytes

    def add(self, size: int) -> None:
        self.files += 1
        self.size += size


def sweep(
    database: Database, storage: Storage, before: datetime, *, dry_run: bool = False
) -> Swept:
    """Delete the files stored before a time that no row names.

    A file is stored before the transaction that names it, so ``before`` must be long ago. What
    a running attempt has stored stays even then: its database may be away, and its events wait.
    Any number of processes may do this at once. Nothing is deleted during a backup.

    Raises what the database or the store raises; what was not done is done by a later call.
    """
    swept = Swept()
    old = (entry for entry in storage.list() if entry.modified < before)
    while batch := list(islice(old, _BATCH)):
        with database.read() as session:
            if session.scalar(select(exists().where(DeletionHold.expires_at > db_now()))):
                return swept
            orphans = _without_owner(session, batch)
        for entry in orphans:
            if not dry_run:
                storage.delete(entry.key)
            swept.add(entry.size)
    return swept


def _without_owner(session: Session, entries: Iterable[Entry]) -> list[Entry]:
    names = {entry.key: set(_names(entry.key)) for entry in entries}
    named = _named_among(session, set().union(*names.values())) if names else set()
    left = [entry for entry in entries if not names[entry.key] & named]
    live = _live(session, {run_id for entry in left if (run_id := _run_id(entry.key))})
    return [entry for entry in left if not entry.key.startswith(tuple(live))]


def _names(key: str) -> Iterator[str]:
    """What a row may name a file by: its key, or that of a folder it is in."""
    yield key
    for parent in PurePosixPath(key).parents:
        if parent.parts:
            yield str(parent)


def _named_among(session: Session, keys: set[str]) -> set[str]:
    found: set[str] = set()
    for table in Base.metadata.tables.values():
        if "storage_key" in table.c and table.name != FileDeletion.__tablename__:
            statement = select(table.c.storage_key).where(table.c.storage_key.in_(keys))
            if "deleted_at" in table.c:
                statement = statement.where(table.c.deleted_at.is_(None))
            found |= set(session.scalars(statement))
    return found


def _run_id(key: str) -> str | None:
    parts = key.split("/")
    return parts[1] if parts[0] == "runs" and len(parts) > 2 else None


def _live(session: Session, run_ids: set[str]) -> list[str]:
    """The folders of the attempts that run now."""
    running = Run.id.in_(run_ids), Run.status == "running"
    rows = session.execute(select(Run.id, Run.attempt).where(*running))
    return [f"runs/{run_id}/{attempt}/" for run_id, attempt in rows]
