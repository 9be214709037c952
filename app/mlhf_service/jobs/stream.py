"""A job's events as server-sent events, read from the database as they commit."""

import json
from collections.abc import AsyncIterator

import anyio
from fastapi.sse import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from mlhf_service.database import Database
from mlhf_service.jobs import repository
from mlhf_service.jobs.models import Job, JobEvent
from mlhf_service.runs.status import TERMINAL

_POLL_SECONDS = 0.3
_RETRY_MILLISECONDS = 2000
_BATCH = 200


async def events(database: Database, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    """Yield each event after number ``after``; ends when the job has ended and all are sent."""
    yield ServerSentEvent(retry=_RETRY_MILLISECONDS)
    while True:
        rows, ended = await run_in_threadpool(_read, database, job_id, after)
        for row in rows:
            after = row.seq
            yield to_message(row)
        if ended and not rows:
            return
        if len(rows) < _BATCH:
            await anyio.sleep(_POLL_SECONDS)


def _read(database: Database, job_id: str, after: int) -> tuple[list[JobEvent], bool]:
    with database.read() as session:
        # The status first: what commits after it is read is sent in the next round.
        job = session.get(Job, job_id)
        ended = job is None or job.status in TERMINAL
        return repository.events_after(session, job_id, after, _BATCH), ended


def to_message(event: JobEvent) -> ServerSentEvent:
    """The message of one event: its number, its type, and its data as JSON."""
    data = json.dumps({**event.data, "at": event.at.isoformat()}, separators=(",", ":"))
    return ServerSentEvent(id=str(event.seq), event=event.type, raw_data=data)
