"""Event streams: one poller feeds all listeners, each gets every event once and in order."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from threading import Event

import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.jobs import stream
from mlhf_service.jobs.journal import add_event
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.stream import Streams, _News
from mlhf_service.kit.problems import Unavailable
from tests.app.conftest import Rows
from tests.waiting import DEADLINE


def _add(database: Database, job_id: str, count: int = 1, status: str | None = None) -> None:
    with database.write() as session:
        for _ in range(count):
            add_event(session, job_id, "log", {"message": "m"})
        if status is not None:
            session.get_one(Job, job_id).status = status


def _run(database: Database, most: int, work: Callable[[Streams], Awaitable[None]]) -> None:
    async def main() -> None:
        streams = Streams(database, most)
        poller = asyncio.create_task(streams.run())
        await asyncio.wait_for(work(streams), DEADLINE)
        poller.cancel()
        with suppress(asyncio.CancelledError):
            await poller

    asyncio.run(main())


async def _numbers(streams: Streams, job_id: str, after: int = 0) -> list[int]:
    return [int(e.id) async for e in streams.events(job_id, after) if e.id is not None]


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_all_listeners_get_all_events_until_the_job_has_ended(
    database: Database, rows: Rows
) -> None:
    job_id, other = rows.job(status="running"), rows.job(status="running")
    _add(database, job_id, 3)

    async def work(streams: Streams) -> None:
        listening = [asyncio.create_task(_numbers(streams, job_id, after)) for after in (0, 0, 2)]
        elsewhere = asyncio.create_task(_numbers(streams, other))
        await _until(lambda: len(streams._listeners.get(job_id, ())) == 3)
        for _ in range(3):
            await asyncio.to_thread(_add, database, job_id, 150)
        await asyncio.to_thread(_add, database, job_id, 1, "succeeded")
        numbers = list(range(1, 455))
        assert await asyncio.gather(*listening) == [numbers, numbers, numbers[2:]]
        await asyncio.to_thread(_add, database, other, 1, "failed")
        assert await elsewhere == [1]
        assert not streams._listeners

    _run(database, 10, work)


def test_a_slow_listener_misses_nothing(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_BUFFERED", 1)
    job_id = rows.job(status="running")

    async def work(streams: Streams) -> None:
        events = streams.events(job_id, 0)
        found: list[int] = []
        await anext(events)  # when to try again
        reading = asyncio.create_task(anext(events))
        await _until(lambda: job_id in streams._listeners)
        (listener,) = streams._listeners[job_id]
        while not listener.behind:
            await asyncio.to_thread(_add, database, job_id)
            await asyncio.sleep(0.02)
        await asyncio.to_thread(_add, database, job_id, 1, "succeeded")
        found.append(int((await reading).id or 0))
        found += [int(event.id or 0) async for event in events]
        assert found == list(range(1, found[-1] + 1))
        with database.read() as session:
            assert found[-1] == session.get_one(Job, job_id).event_seq

    _run(database, 10, work)


def test_one_that_comes_during_a_look_misses_nothing(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read before the events that the look begins after."""
    job_id = rows.job(status="running")
    _add(database, job_id, 3)
    news_of = Streams._news_of

    async def work(streams: Streams) -> None:
        loop, late_has_read, look_goes_on = asyncio.get_running_loop(), Event(), Event()

        def delayed(self: Streams, after: Mapping[str, int]) -> dict[str, _News]:
            if after == {job_id: 2}:  # the late one: its answer is older than the next look
                found = news_of(self, after)
                late_has_read.set()
                assert late_may_register.wait(DEADLINE)
                return found
            found = news_of(self, after)
            if after == {job_id: 4}:
                loop.call_soon_threadsafe(look_began.set)
                assert look_goes_on.wait(DEADLINE)
            return found

        late_may_register, look_began = Event(), asyncio.Event()
        monkeypatch.setattr(Streams, "_news_of", delayed)
        early = asyncio.create_task(_numbers(streams, job_id, 3))
        await _until(lambda: job_id in streams._listeners)
        late = asyncio.create_task(_numbers(streams, job_id, 2))
        await asyncio.to_thread(late_has_read.wait, DEADLINE)
        await asyncio.to_thread(_add, database, job_id)  # 4, given to the early one alone
        (listener,) = streams._listeners[job_id]
        await _until(lambda: listener.after == 4)
        await asyncio.to_thread(_add, database, job_id)
        await look_began.wait()
        late_may_register.set()
        await _until(lambda: len(streams._listeners[job_id]) == 2)
        look_goes_on.set()
        await asyncio.to_thread(_add, database, job_id, 1, "succeeded")
        assert await early == [4, 5, 6]
        assert await late == [3, 4, 5, 6]

    _run(database, 10, work)


def test_streams_beyond_the_limit_are_refused(database: Database) -> None:
    streams = Streams(database, 1)
    with streams.slot(), pytest.raises(Unavailable), streams.slot():
        pass
    with streams.slot():
        pass


def test_a_refused_stream_says_when_to_try_again(client: TestClient, rows: Rows) -> None:
    job_id = rows.job()
    client.app.state.streams._most = 0  # type: ignore[attr-defined]
    response = client.get(f"/v1/jobs/{job_id}/events")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "10"
    assert "event streams" in response.json()["detail"]
