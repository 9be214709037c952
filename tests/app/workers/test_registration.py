"""A worker's row: what it does, seen by the database's clock, gone when it has stopped."""

from collections.abc import Callable, Iterator

import pytest

from mlhf_service.database import Database
from mlhf_service.queue import worker
from mlhf_service.settings import Settings
from mlhf_service.workers import repository
from mlhf_service.workers.fitness import Fitness
from mlhf_service.workers.models import Worker
from mlhf_service.workers.registration import Identity, Registration
from tests.waiting import until


@pytest.fixture
def fitness() -> Fitness:
    return Fitness([])


@pytest.fixture
def registration(
    settings: Settings, database: Database, fitness: Fitness
) -> Iterator[Registration]:
    made = Registration(
        settings.model_copy(update={"heartbeat_seconds": 0.1}),
        database,
        Identity("wrk_1", "cpu-1", "cpu", 7),
        {"type": "cpu"},
        fitness,
    )
    yield made
    made.stop()


@pytest.fixture
def only(database: Database) -> Callable[[], Worker | None]:
    """The one worker that is alive, if any."""

    def look() -> Worker | None:
        with database.read() as session:
            found = repository.alive(session, 30.0)
        assert len(found) <= 1
        return found[0] if found else None

    return look


def test_a_row_says_who_it_is_and_what_it_does(
    registration: Registration, fitness: Fitness, only: Callable[[], Worker | None]
) -> None:
    registration.start()
    row = until(only, "not registered")
    assert (row.id, row.name, row.queue, row.pid) == ("wrk_1", "cpu-1", "cpu", 7)
    assert row.state in ("idle", "training")
    assert row.memory_bytes > 2**20
    assert row.cores >= 1

    def state() -> tuple[str, str | None]:
        found = only()
        assert found is not None
        return found.state, found.run_id

    with registration.training("run_1"):
        until(lambda: state() == ("training", "run_1"), "not training")
    until(lambda: state() == ("idle", None), "still training")
    first = only()
    until(lambda: only().seen_at > first.seen_at, "no further heartbeat")  # type: ignore[union-attr]
    fitness.suspect("the disk is full", "run_1")
    registration.notify()
    until(lambda: state() == ("unfit", None), "not unfit")
    assert only().reason == "the disk is full"  # type: ignore[union-attr]
    registration.stop()
    assert only() is None


def test_who_is_silent_is_not_alive_and_later_forgotten(
    registration: Registration, database: Database
) -> None:
    registration.beat()
    registration.beat()
    with database.write() as session:
        assert [w.id for w in repository.fit(session, 30.0, "cpu")] == ["wrk_1"]
        assert repository.fit(session, 30.0, "gpu") == []
        session.get_one(Worker, "wrk_1").seen_at -= 100
    with database.write() as session:
        assert repository.alive(session, 30.0) == []
        assert repository.forget_silent(session, 1000.0) == 0
        assert repository.forget_silent(session, 50.0) == 1


def test_an_unfit_worker_claims_nothing_until_it_is_fit(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter(["the disk is full", "the disk is full", None])
    asked = []

    class Counting(Fitness):
        def check(self) -> str | None:
            asked.append(next(found))
            return asked[-1]

    registration = Registration(
        settings, database, Identity("wrk_1", "cpu-1", "cpu", 7), {}, Counting([])
    )
    monkeypatch.setattr(worker, "_UNFIT_SECONDS", 0.01)
    claims = []
    monkeypatch.setattr(worker, "claim_next", lambda *_: claims.append(len(asked)))
    assert worker.drain(settings, database, "cpu", registration) == 0
    assert claims == [3]
