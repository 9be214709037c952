"""Bring a database to the present schema."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from mlhf_service.database import Database
from mlhf_service.tables import Base

# In a wheel they lie inside the package, in a checkout beside ``app``.
_INSTALLED = Path(__file__).parent / "migrations"
MIGRATIONS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "migrations"

_LOCK = 0x6D6C6866  # "mlhf": one migration at a time on PostgreSQL


def migrate(database: Database, revision: str = "head") -> None:
    """Upgrade ``database`` to ``revision``; several processes may call this at once."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin() as connection:
        if not database.is_sqlite:
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def differences(connection: Connection) -> list[object]:
    """What the tables in code have that the database has not, and the other way."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))
