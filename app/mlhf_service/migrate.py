"""Bring a database to the present schema."""

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from mlhf_service.database import Database, explained
from mlhf_service.errors import StartError
from mlhf_service.tables import Base

# Inside the package in a wheel, beside ``app`` in a checkout.
_INSTALLED = Path(__file__).parent / "migrations"
MIGRATIONS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "migrations"

_LOCK = 0x6D6C6866  # "mlhf": one migration at a time on PostgreSQL


def migrate(database: Database, revision: str = "head") -> None:
    """Upgrade ``database`` to ``revision``; several processes may call this at once.

    Raises StartError where the database cannot be used, or is not ours to upgrade.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    writer = database.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")
    with explained(database), writer.begin() as connection:
        if not database.is_sqlite:
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        require_known(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def require_known(connection: Connection) -> None:
    """Raise StartError for the data of a newer version, or of another program."""
    where = connection.engine.url.render_as_string(hide_password=True)
    scripts = ScriptDirectory(str(MIGRATIONS))
    known = {script.revision for script in scripts.walk_revisions()}
    present = set(MigrationContext.configure(connection).get_current_heads())
    if present - known:
        newest = ", ".join(sorted(present - known))
        raise StartError(
            f"The data in {where} was written by a newer version of MLHF (schema {newest}; this "
            f"version knows up to {max(known)}). Upgrade mlhf, or choose another --data-dir."
        )
    if not present:
        foreign = sorted(set(inspect(connection).get_table_names()) & set(Base.metadata.tables))
        if foreign:
            raise StartError(
                f"The database {where} belongs to another program: it has tables called "
                f"{', '.join(foreign)}. Choose another MLHF_DATABASE_URL or --data-dir."
            )


def differences(connection: Connection) -> list[object]:
    """Where the database's tables and those of the code differ."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Base.metadata))
