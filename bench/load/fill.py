"""Fill a migrated database with the rows of ``bench.load.rows``."""

from sqlalchemy import insert, text, update

from bench.load.rows import Batch, batches
from mlhf_service.database import Database
from mlhf_service.jobs import tally
from mlhf_service.jobs.models import Job
from mlhf_service.tables import Base

_TABLES = ("jobs", "job_tags", "runs", "job_events")


def fill(database: Database, runs: int, seed: int = 0) -> list[str]:
    """Add about ``runs`` runs; returns the ids of those that were trained."""
    trained: list[str] = []
    for batch in batches(runs, seed):
        _write(database, batch)
        trained += [run["id"] for run in batch.runs if run["totals"]]
    return trained


def settle(database: Database) -> None:
    """Let the database know what it holds now, as it would by itself after a while."""
    with database.engine.connect() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql("ANALYZE")
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text("vacuum analyze"))


def _write(database: Database, batch: Batch) -> None:
    with database.write() as session:
        for name in _TABLES:
            session.execute(insert(Base.metadata.tables[name]), getattr(batch, name))
        ended = [job["id"] for job in batch.jobs if job["finished_at"]]
        tallies = tally.count(session, ended)
        session.execute(
            update(Job), [{"id": job_id, "tally": tallies[job_id].stored()} for job_id in ended]
        )
