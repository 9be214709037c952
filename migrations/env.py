"""Alembic's environment: migrates the database it is handed, SQLite or PostgreSQL."""

from alembic import context

from mlhf_service.database import Database
from mlhf_service.settings import Settings
from mlhf_service.tables import Base


def migrate() -> None:
    """Run the migrations on the connection given by the caller, or on the settings'."""
    connection = context.config.attributes.get("connection")
    if connection is None:
        database = Database(Settings().database)
        with database.engine.connect() as own:
            _run(own)
            own.commit()
        database.dispose()
    else:
        _run(connection)


def _run(connection: object) -> None:
    context.configure(
        connection=connection,  # type: ignore[arg-type]
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite alters a table by copying it
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


migrate()
