"""PostgreSQL's own word on new events: its trigger on them notifies by the job's id."""

from collections.abc import AsyncIterator

import psycopg

from mlhf_service.database import Database

CHANNEL = "mlhf_job_events"
LOST = (psycopg.Error, OSError)  # what ``listen`` raises when its connection is gone


async def listen(database: Database) -> AsyncIterator[str | None]:
    """Yield the id of each job that has a new event; None first, when the listening begins."""
    options = database.engine.dialect.create_connect_args(database.url)[1]
    async with await psycopg.AsyncConnection.connect(autocommit=True, **options) as connection:
        await connection.execute(f"listen {CHANNEL}")
        yield None
        async for notification in connection.notifies():
            yield notification.payload
