"""Bring a database to the present schema."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from mlhf_service.compatibility import (
    SchemaFloor,
    floor_of,
    may_work,
    read_floor,
    write_floor,
)
from mlhf_service.database import Database, explained
from mlhf_service.errors import StartError
from mlhf_service.tables import Base

# Inside the package in a wheel, beside ``app`` in a checkout.
_INSTALLED = Path(__file__).parent / "migrations"
MIGRATIONS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "migrations"

log = logging.getLogger(__name__)

_LOCK = 0x6D6C6866  # "mlhf": one migration at a time on PostgreSQL
_PATIENCE_SECONDS = 3600.0
_WAITING = "Another process upgrades the database, or holds its lock. Waiting for it."


def migrate(database: Database, revision: str = "head") -> None:
    """Upgrade ``database`` to ``revision``; several processes may call this at once.

    A newer schema on which this version may still work is left as it is. Raises StartError
    where the database cannot be used, or is not ours to upgrade.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with explained(database):
        with _alone(database) as connection:
            if require_known(connection):
                return
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            if inspect(connection).has_table(SchemaFloor.__tablename__):
                (present,) = MigrationContext.configure(connection).get_current_heads()
                write_floor(connection, floor_of(_migrations(present)))
        database.sync()


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """A transaction in which no other process migrates: it waits for one that does.

    On a large database that takes longer than any other statement may.
    """
    writer = database.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
    with ExitStack() as stack:
        if database.is_sqlite:
            yield _patiently(lambda: stack.enter_context(writer.begin()))
            return
        connection = stack.enter_context(writer.begin())
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"set local {limit} = 0"))
        key = {"key": _LOCK}
        if not connection.scalar(text("select pg_try_advisory_xact_lock(:key)"), key):
            log.warning(_WAITING)
            connection.execute(text(f"set local lock_timeout = '{_PATIENCE_SECONDS:.0f}s'"))
            connection.execute(text("select pg_advisory_xact_lock(:key)"), key)
            connection.execute(text("set local lock_timeout = default"))
        yield connection


def _patiently(begin: Callable[[], Connection]) -> Connection:
    """Begin on SQLite, whose own patience is that of a request."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return begin()
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            log.warning(_WAITING)


def require_known(connection: Connection) -> bool:
    """Raise StartError for the data of another program, or of a version that leaves us behind.

    Returns whether the schema is newer than this version, which may go on with it.
    """
    where = connection.engine.url.render_as_string(hide_password=True)
    known = known_revisions()
    present = set(MigrationContext.configure(connection).get_current_heads())
    if present - known:
        floor = read_floor(connection)
        if may_work(floor, known):
            return True
        newest = ", ".join(sorted(present - known))
        raise StartError(
            f"The data in {where} was written by a newer version of MLHF (schema {newest}; this "
            f"version knows up to {max(known)}, and the oldest that may go on is "
            f"{floor or newest}). Upgrade mlhf, or choose another --data-dir."
        )
    if not present:
        foreign = sorted(set(inspect(connection).get_table_names()) & set(Base.metadata.tables))
        if foreign:
            raise StartError(
                f"The database {where} belongs to another program: it has tables called "
                f"{', '.join(foreign)}. Choose another MLHF_DATABASE_URL or --data-dir."
            )
    return False


def _migrations(revision: str) -> list[Script]:
    """The migrations that lead to a revision, the oldest first."""
    found = ScriptDirectory(str(MIGRATIONS)).walk_revisions(head=revision)
    return list(reversed(list(found)))


def known_revisions() -> set[str]:
    """The revisions of the schema that this version's migrations lead to."""
    return {s.revision for s in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}


def _is_of_code(name: str | None, kind: str, _parents: Any) -> bool:
    """Trigrams are indexed where PostgreSQL can: no code depends on it."""
    return kind != "index" or not (name or "").endswith("_trigrams")


def differences(connection: Connection) -> list[object]:
    """Where the database's tables and those of the code differ."""
    options = {"compare_type": True, "include_name": _is_of_code}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, Base.metadata))
