"""Write a backup while the service runs."""

import gzip
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

import mlhf
from mlhf_service.backup import rows
from mlhf_service.backup.archive import FILES, FOLDERS, FORMAT, TABLES, Manifest, Writer, writing
from mlhf_service.database import Database, explained, now
from mlhf_service.deletions.files import held
from mlhf_service.errors import StartError
from mlhf_service.settings import Settings
from mlhf_service.storage.protocol import Storage


def create(settings: Settings, database: Database, storage: Storage, path: Path) -> Manifest:
    """Back up the whole service to ``path``.

    All rows are of one moment: they are read in one transaction, of isolation REPEATABLE READ on
    PostgreSQL, a snapshot of the write-ahead log on SQLite. No file that they name is deleted
    before it is copied. Nobody waits meanwhile.

    Raises StartError where the database cannot be read, or ``path`` exists.
    """
    with writing(path) as archive, explained(database):
        # Files first held, then the snapshot: what is being deleted now, it no longer names.
        with held(database):
            with _snapshot(database) as connection:
                heads = MigrationContext.configure(connection).get_current_heads()
                if len(heads) != 1:
                    raise StartError("The database was never migrated: there is nothing in it.")
                counts, named = _copy_rows(connection, archive, path.parent)
            missing, damaged = _copy_files(storage, archive, named)
        manifest = Manifest(
            format=FORMAT,
            version=mlhf.__version__,
            schema_revision=heads[0],
            database="sqlite" if database.is_sqlite else "postgresql",
            created_at=now().isoformat(),
            settings=settings.public(),
            rows=counts,
            missing=missing,
            damaged=damaged,
            members=archive.members,
        )
        archive.finish(manifest)
    return manifest


@contextmanager
def _snapshot(database: Database) -> Iterator[Connection]:
    """A transaction that sees the database as it is at its first query, for as long as it takes."""
    engine = database.engine
    if not database.is_sqlite:
        engine = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
    with engine.connect() as connection:
        if not database.is_sqlite:
            for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(text(f"set local {name} = 0"))
        try:
            yield connection
        finally:
            connection.rollback()


def _copy_rows(
    connection: Connection, archive: Writer, beside: Path
) -> tuple[dict[str, int], dict[str, str | None]]:
    """Add all tables; returns how many rows each has, and the storage keys with their SHA-256."""
    counts: dict[str, int] = {}
    named: dict[str, str | None] = {}
    for table in rows.tables(connection):
        with tempfile.TemporaryFile(dir=beside) as file:
            count = 0
            with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed:
                for row in rows.dump(connection, table):
                    packed.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
                    count += 1
                    if row.get("storage_key") and row.get("deleted_at") is None:
                        named[row["storage_key"]] = row.get("sha256")
            size = file.tell()
            file.seek(0)
            archive.add(f"{TABLES}{table.name}.jsonl.gz", file, size)
        counts[table.name] = count
    return counts, named


def _copy_files(
    storage: Storage, archive: Writer, named: dict[str, str | None]
) -> tuple[list[str], list[str]]:
    """Add the files and folders of the store; returns the keys of what is missing, or damaged."""
    missing, damaged = [], []
    for key, sha256 in sorted(named.items()):
        if (entry := storage.stat(key)) is not None:
            source: Any = io.BufferedReader(_Pieces(storage.read(key)))
            digest = archive.add(FILES + key, source, entry.size)
            if sha256 is not None and digest != sha256:
                damaged.append(key)
        elif storage.has_folder(key):
            folder = storage.local_folder(key)
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                name = f"{FOLDERS}{key}/{path.relative_to(folder).as_posix()}"
                with path.open("rb") as file:
                    archive.add(name, file, path.stat().st_size)
        else:
            missing.append(key)
    return missing, damaged


class _Pieces(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
