"""The lease is renewed whatever an attempt is at, and its loss ends the trainer at once."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text, update

from mlhf_service.database import Database, db_now
from mlhf_service.queue import leases
from mlhf_service.queue.attempt import Attempt
from mlhf_service.queue.claims import claim_next
from mlhf_service.queue.ingest import Ingestor
from mlhf_service.queue.lease_keeper import LeaseKeeper
from mlhf_service.queue.sweeper import expire_leases, void_leases
from mlhf_service.runs.models import Run
from mlhf_service.storage.folder import FolderStorage
from tests.app.queue.test_attempt import LONG
from tests.app.queue.worker import Service
from tests.waiting import until

LEASE = 2.0


def remaining(database: Database, run_id: str) -> float:
    with database.read() as session:
        expires = session.get_one(Run, run_id).lease_expires_at
        return (expires or 0.0) - float(session.scalar(db_now().select()))  # type: ignore[arg-type]


@pytest.fixture
def short(worker: Service) -> Service:
    worker.settings = worker.settings.model_copy(update={"lease_seconds": LEASE})
    return worker


def hold_up(
    monkeypatch: pytest.MonkeyPatch, cls: type, name: str, until_then: threading.Event
) -> threading.Event:
    """Let a method of the attempt's wait for an event; returns one that is set once it does."""
    waits, real = threading.Event(), getattr(cls, name)

    def held(*arguments: Any, **options: Any) -> Any:
        waits.set()
        assert until_then.wait(60)
        return real(*arguments, **options)

    monkeypatch.setattr(cls, name, held)
    return waits


@pytest.mark.parametrize(("cls", "name"), [(FolderStorage, "put"), (Ingestor, "apply")])
def test_what_takes_longer_than_a_lease_loses_no_run(
    short: Service, submit: Any, monkeypatch: pytest.MonkeyPatch, cls: type, name: str
) -> None:
    submit()
    go_on = threading.Event()
    waits = hold_up(monkeypatch, cls, name, go_on)
    thread = threading.Thread(target=short.work)
    thread.start()
    assert waits.wait(60)
    began = time.monotonic()
    while time.monotonic() - began < 1.5 * LEASE:
        expire_leases(short.database, 5)
        time.sleep(0.2)
    go_on.set()
    thread.join(60)
    run = short.run()
    assert (run.status, run.attempt) == ("succeeded", 1)


def test_a_lost_lease_ends_the_trainer_while_its_worker_is_busy(
    short: Service, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(**LONG)
    go_on = threading.Event()
    waits = hold_up(monkeypatch, FolderStorage, "put", go_on)
    claim = claim_next(short.database, "cpu", "test", LEASE)
    assert claim is not None
    attempt = Attempt(short.settings, short.database, short.storage, claim, lambda: False)
    thread = threading.Thread(target=attempt.run)
    thread.start()
    try:
        assert waits.wait(60)
        process = attempt.trainer._process
        assert process is not None
        until(lambda: taken_back(short.database), "no lease ran out")
        until(lambda: _has_ended(process.pid), "the trainer goes on", seconds=30)
    finally:
        go_on.set()
        thread.join(60)
    assert short.run().status == "queued"


def taken_back(database: Database) -> bool:
    return bool(void_leases(database) and expire_leases(database, 5))


def _has_ended(pid: int) -> bool:
    """Whether it is gone, or only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def keeper(short: Service, claim: leases.Claim, lost: threading.Event) -> LeaseKeeper:
    return LeaseKeeper(short.settings.database, claim, LEASE, 0.05, lost.set)


def test_wishes_and_losses_are_told(short: Service, submit: Any) -> None:
    from mlhf_service.jobs.models import Job

    job_id, lost = submit(), threading.Event()
    claim = claim_next(short.database, "cpu", "test", LEASE)
    assert claim is not None
    with keeper(short, claim, lost) as kept:
        with short.database.write() as session:
            session.execute(update(Job).where(Job.id == job_id).values(desired="pause"))
        until(lambda: kept.desired == "pause", "the wish is not told")
        kept.check()
        assert remaining(short.database, claim.run_id) > LEASE / 2
        with short.database.write() as session:
            session.execute(update(Run).values(attempt=Run.attempt + 1))
        assert lost.wait(30)
        with pytest.raises(leases.FencedError):
            kept.check()


def test_a_write_leaves_a_whole_lease_however_long_it_took(short: Service, submit: Any) -> None:
    submit()
    claim = claim_next(short.database, "cpu", "test", LEASE)
    assert claim is not None
    slow = threading.Event()

    def linger(*_: Any) -> None:
        if not slow.is_set():
            slow.set()
            time.sleep(LEASE)

    ingestor = Ingestor(short.database, short.storage, claim, LEASE)
    with short.database.engine.connect() as connection:
        connection.execute(text("select 1"))
    event.listen(short.database.engine, "before_cursor_execute", linger)
    try:
        ingestor.apply([])
    finally:
        event.remove(short.database.engine, "before_cursor_execute", linger)
    assert slow.is_set()
    assert remaining(short.database, claim.run_id) > LEASE / 2


def test_a_database_that_is_away_is_waited_for(
    short: Service, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    from mlhf_service.queue import lease_keeper

    submit()
    claim = claim_next(short.database, "cpu", "test", LEASE)
    assert claim is not None
    away, tries = threading.Event(), []

    def renew(*arguments: Any) -> Any:
        tries.append(1)
        if not away.is_set():
            raise OperationalError("renew", {}, Exception("away"))
        return leases.renew(*arguments)

    monkeypatch.setattr(lease_keeper, "renew", renew)
    lost = threading.Event()
    with keeper(short, claim, lost) as kept:
        until(lambda: len(tries) >= 3, "it is not tried again")
        kept.check()
        before = remaining(short.database, claim.run_id)
        away.set()
        until(lambda: remaining(short.database, claim.run_id) > before, "not renewed")
    assert not lost.is_set()
