"""Jobs' events as server-sent events: one poller in a process feeds all who listen.

A listener first reads what there is, then waits for the poller, which asks the database for all
watched jobs at once: a few times a second on SQLite, when PostgreSQL notifies of an event there.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import anyio
from anyio import CapacityLimiter, to_thread
from fastapi.sse import ServerSentEvent
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from mlhf_service.database import Database
from mlhf_service.jobs import notifications, repository
from mlhf_service.jobs.models import Job, JobEvent
from mlhf_service.kit.problems import Unavailable
from mlhf_service.runs.status import TERMINAL

log = logging.getLogger(__name__)

POLL_SECONDS = 0.3
_NOTIFIED_SECONDS = 5.0  # between looks where the database tells when to look
_GATHER_SECONDS = 0.05  # one look for the events of many jobs
_RETRY_MILLISECONDS = 2000
_BATCH = 200
_BUFFERED = 20  # batches for a listener that is slow; then it reads again by itself
_READERS = 4  # threads that read what there is for new listeners

Message = tuple[int, ServerSentEvent]


@dataclass(eq=False)
class _Listener:
    """One client. ``after`` is the number of the last event it was given."""

    after: int
    batches: "asyncio.Queue[list[Message] | None]"  # None: the job has ended
    behind: bool = False


@dataclass(frozen=True)
class _News:
    """What the poller found of one job."""

    messages: list[Message]
    ended_at: int | None  # the number of its last event, if it has ended


class Streams:
    """The event streams of one process, at most ``most`` at once.

    ``run`` must be running while ``events`` are iterated over.
    """

    def __init__(self, database: Database, most: int) -> None:
        self._database = database
        self._most = most
        self._open = 0
        self._listeners: dict[str, set[_Listener]] = {}
        self._somebody = asyncio.Event()
        self._look = asyncio.Event()
        self._notified = False
        self._readers = CapacityLimiter(_READERS)
        self._poller = CapacityLimiter(1)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Room for one stream. Raises Unavailable where there is none."""
        if self._open >= self._most:
            detail = f"This process already feeds {self._most} event streams. Try again later."
            raise Unavailable(detail, None, {"Retry-After": "10"})
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def events(self, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
        """Yield each event after number ``after``; ends when the job has ended and all are sent."""
        yield ServerSentEvent(retry=_RETRY_MILLISECONDS)
        while True:
            seen = {job_id: after}
            read = await to_thread.run_sync(self._news_of, seen, limiter=self._readers)
            found = read.get(job_id)
            if found is None:
                return
            for number, message in found.messages:
                after = number
                yield message
            if len(found.messages) == _BATCH:
                continue
            if found.ended_at is not None and after >= found.ended_at:
                return
            listener = _Listener(after, asyncio.Queue(_BUFFERED))
            with self._listening(job_id, listener):
                while batch := await self._next(listener):
                    for number, message in batch:
                        after = number
                        yield message
            if not listener.behind:
                return

    async def run(self) -> None:
        """Poll for as long as anybody listens, until cancelled."""
        async with anyio.create_task_group() as group:
            if not self._database.is_sqlite:
                group.start_soon(self._be_notified)
            while True:
                await self._somebody.wait()
                await self._poll()
                with anyio.move_on_after(_NOTIFIED_SECONDS if self._notified else POLL_SECONDS):
                    await self._look.wait()
                    await anyio.sleep(_GATHER_SECONDS)
                self._look.clear()

    async def _poll(self) -> None:
        after = {job_id: min(one.after for one in own) for job_id, own in self._listeners.items()}
        try:
            found = await to_thread.run_sync(self._news_of, after, limiter=self._poller)
        except SQLAlchemyError as error:  # the next look may find it back
            log.warning("events: database away: %s", type(error).__name__)
            await anyio.sleep(1.0)
            return
        for job_id in after:
            news = found.get(job_id, _News([], 0))  # a job that is gone has ended
            if len(news.messages) == _BATCH:
                self._look.set()
            for listener in list(self._listeners.get(job_id, ())):
                # One that came meanwhile may know less than what this look began after.
                if listener.after >= after[job_id]:
                    _give(listener, news)

    async def _be_notified(self) -> None:
        """Let PostgreSQL say when to look; while it does not, the poller looks often."""
        while True:
            await self._somebody.wait()
            try:
                async for job_id in notifications.listen(self._database):
                    self._notified = True
                    if job_id is None or job_id in self._listeners:
                        self._look.set()
            except notifications.LOST as error:
                log.warning("events: not notified by the database: %s", type(error).__name__)
            self._notified = False
            await anyio.sleep(1.0)

    @contextmanager
    def _listening(self, job_id: str, listener: _Listener) -> Iterator[None]:
        self._listeners.setdefault(job_id, set()).add(listener)
        self._somebody.set()
        self._look.set()  # for what was written since it read
        try:
            yield
        finally:
            self._listeners[job_id].discard(listener)
            if not self._listeners[job_id]:
                del self._listeners[job_id]
            if not self._listeners:
                self._somebody.clear()

    @staticmethod
    async def _next(listener: _Listener) -> list[Message] | None:
        if listener.behind and listener.batches.empty():
            return None
        return await listener.batches.get()

    def _news_of(self, after: Mapping[str, int]) -> dict[str, _News]:
        """What there is of some jobs beyond an event each; nothing of jobs that are gone."""
        with self._database.read() as session:
            # The state first: what commits after it is read is found in the next look.
            states = select(Job.id, Job.status, Job.event_seq).where(Job.id.in_(after))
            found = {}
            for job_id, status, last in session.execute(states).all():
                rows: list[JobEvent] = []
                if last > after[job_id]:
                    rows = repository.events_after(session, job_id, after[job_id], _BATCH)
                messages = [(row.seq, to_message(row)) for row in rows]
                found[job_id] = _News(messages, last if status in TERMINAL else None)
            return found


def _give(listener: _Listener, news: _News) -> None:
    """Hand one listener what is new to it; one that does not keep up reads again by itself."""
    batch = [one for one in news.messages if one[0] > listener.after]
    if listener.behind:
        return
    try:
        if batch:
            listener.batches.put_nowait(batch)
            listener.after = batch[-1][0]
        if news.ended_at is not None and listener.after >= news.ended_at:
            listener.batches.put_nowait(None)
    except asyncio.QueueFull:
        listener.behind = True


def to_message(event: JobEvent) -> ServerSentEvent:
    """The message of one event: its number, its type, and its data as JSON."""
    data = json.dumps({**event.data, "at": event.at.isoformat()}, separators=(",", ":"))
    return ServerSentEvent(id=str(event.seq), event=event.type, raw_data=data)
