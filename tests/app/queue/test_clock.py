"""The database's clock is set while runs are leased: nothing is lost, nothing waits an hour.

A clock that is set is one whose distance to one that is never set changes, so the tests move
the latter, and the leases as they would look.
"""

import time
from typing import Any

import pytest
from sqlalchemy import update

from mlhf_service.database import Database, db_now
from mlhf_service.queue.claims import claim_next
from mlhf_service.queue.clock import ClockWatch, shorten_waits
from mlhf_service.queue.sweeper import Sweeper, expire_leases
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings

HOUR = 3600.0


def _run(database: Database) -> Run:
    with database.read() as session:
        (run,) = session.query(Run)
        return run


def _move(database: Database, **columns: Any) -> None:
    with database.write() as session:
        session.execute(update(Run).values(columns))


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlhf_service.queue.doorbell.ring", lambda *_, **__: None)


class SettableClock:
    """Seconds of a clock that is never set, as a clock that is would see them."""

    def __init__(self) -> None:
        self.set_by = 0.0

    def __call__(self) -> float:
        return time.monotonic() - self.set_by


def test_a_step_is_seen_and_time_that_passes_is_none(database: Database) -> None:
    clock = SettableClock()
    watch = ClockWatch(clock)
    with database.read() as session:
        assert watch.step(session) == 0.0
        assert abs(watch.step(session)) < 60.0
        clock.set_by = HOUR
        assert watch.step(session) == pytest.approx(HOUR, abs=60)
        clock.set_by = 0.0
        assert watch.step(session) == pytest.approx(-HOUR, abs=60)


def test_a_clock_set_forward_takes_no_run_from_a_worker_that_lives(
    database: Database, settings: Settings, submit: Any, rung: None
) -> None:
    submit()
    assert claim_next(database, "cpu", "test", settings.lease_seconds) is not None
    sweeper = Sweeper(settings, database, expire_at_once=True)
    clock = SettableClock()
    sweeper._clock = ClockWatch(clock)
    sweeper.sweep()
    clock.set_by = HOUR
    _move(database, lease_expires_at=Run.lease_expires_at - HOUR)
    sweeper.sweep()
    assert _run(database).status == "running", "its worker had no time to renew the lease"
    sweeper._expire_after = 0.0
    sweeper.sweep()
    assert _run(database).status == "queued", "a lease that nobody renews runs out"


def test_a_clock_set_back_makes_nobody_wait_for_an_hour(
    database: Database, settings: Settings, submit: Any, rung: None
) -> None:
    submit()
    assert claim_next(database, "cpu", "test", settings.lease_seconds) is not None
    assert shorten_waits(database, settings.lease_seconds) == 0
    sweeper = Sweeper(settings, database, expire_at_once=True)
    clock = SettableClock()
    sweeper._clock = ClockWatch(clock)
    sweeper.sweep()
    clock.set_by = -HOUR
    _move(database, lease_expires_at=Run.lease_expires_at + HOUR)
    sweeper.sweep()
    with database.read() as session:
        left = session.query(Run.lease_expires_at - db_now()).scalar()
    assert left < 2 * settings.lease_seconds

    _move(database, lease_expires_at=0.0)
    assert expire_leases(database, 5) == 1
    _move(database, available_at=db_now() + HOUR)
    assert shorten_waits(database, settings.lease_seconds) == 1
    with database.read() as session:
        assert session.query(Run.available_at - db_now()).scalar() < 60.0


def test_a_scheduled_start_is_kept(database: Database, settings: Settings, submit: Any) -> None:
    submit()
    _move(database, available_at=db_now() + HOUR)
    assert shorten_waits(database, settings.lease_seconds) == 0
