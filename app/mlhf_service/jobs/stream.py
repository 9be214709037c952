"""A job's events as server-sent events, read from the database as they commit."""

import json
import time
from collections.abc import AsyncIterator

import anyio
from starlette.concurrency import run_in_threadpool

from mlhf_service.database import Database
from mlhf_service.jobs import repository
from mlhf_service.jobs.models import Job, JobEvent
from mlhf_service.jobs.transitions import TERMINAL

_POLL_SECONDS = 0.3
_KEEP_ALIVE_SECONDS = 15.0
_BATCH = 200


async def events(database: Database, job_id: str, after: int) -> AsyncIterator[str]:
    """Yield each event after number ``after``; ends when the job has ended and all is told."""
    yield "retry: 2000\n\n"
    told = time.monotonic()
    while True:
        rows, ended = await run_in_threadpool(_read, database, job_id, after)
        for row in rows:
            after = row.seq
            yield encode(row)
        if rows:
            told = time.monotonic()
        elif ended:
            return
        elif time.monotonic() - told > _KEEP_ALIVE_SECONDS:
            yield ": still here\n\n"
            told = time.monotonic()
        if len(rows) < _BATCH:
            await anyio.sleep(_POLL_SECONDS)


def _read(database: Database, job_id: str, after: int) -> tuple[list[JobEvent], bool]:
    with database.read() as session:
        # The status first: what is committed after it was read is told in the next round.
        job = session.get(Job, job_id)
        ended = job is None or job.status in TERMINAL
        return repository.events_after(session, job_id, after, _BATCH), ended


def encode(event: JobEvent) -> str:
    """One event in the wire format of server-sent events."""
    data = json.dumps({**event.data, "at": event.at.isoformat()}, separators=(",", ":"))
    return f"id: {event.seq}\nevent: {event.type}\ndata: {data}\n\n"
