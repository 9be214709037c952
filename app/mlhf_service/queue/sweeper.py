"""The sweeper: rings for waiting runs, and expires the leases of workers that have gone."""

import logging
import threading
import time

from sqlalchemy import ColumnElement, and_, exists, select, update

from mlhf_service import measures
from mlhf_service.database import Database, db_now
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.state import settle
from mlhf_service.queue import catch_up, doorbell
from mlhf_service.queue.clock import ClockWatch, shorten_waits
from mlhf_service.queue.finish import Outcome, end_attempt
from mlhf_service.queue.names import QUEUES
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import LOGGED
from mlhf_service.settings import Settings
from mlhf_service.workers import repository as workers

log = logging.getLogger(__name__)

_FORGET_EVERY_SECONDS, _FORGOTTEN_AFTER_SECONDS = 60.0, 3600.0
_LOST = Outcome("lost", {}, "its worker fell silent and the lease ran out")
_KILLED = Outcome("lost", {}, "its worker's process was killed")
_SILENT = Outcome("lost", {}, "Its logger fell silent: the program that trained it may have died.")


class Sweeper:
    """Sweeps periodically. Any number of processes may: each step is a conditional update."""

    def __init__(
        self, settings: Settings, database: Database, *, expire_at_once: bool = False
    ) -> None:
        self._settings = settings
        self._database = database
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Workers that could not reach a database that was away get a full lease to renew.
        delay = 0.0 if expire_at_once else settings.lease_seconds
        self._expire_after = time.monotonic() + delay
        self._loggers_after = time.monotonic() + settings.logger_seconds
        self._clock = ClockWatch()
        self._last_pass = time.monotonic()
        self._last_ring: dict[str, float] = {}
        self._forget_at = 0.0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="sweeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _loop(self) -> None:
        while not self._stop.wait(self._settings.poll_seconds):
            try:
                self.sweep()
            except Exception as error:
                log.warning("sweep failed: %s: %s", type(error).__name__, error)

    def sweep(self) -> None:
        """One pass. Raises what the database or the broker raises."""
        started = time.monotonic()
        if started - self._last_pass > self._settings.logger_seconds / 2:
            self._loggers_after = started + self._settings.logger_seconds
        if started - self._last_pass > self._settings.lease_seconds / 2:
            self._expire_after = started + self._settings.lease_seconds
        try:
            with self._database.read() as session:
                step = self._clock.step(session)
            if step > self._settings.lease_seconds / 2:  # all leases look as if they had run out
                log.warning("the database's clock was set forward by %.0f s", step)
                self._loggers_after = started + self._settings.logger_seconds
                self._expire_after = started + self._settings.lease_seconds
            elif step < -self._settings.lease_seconds / 2:
                shorten_waits(self._database, self._settings.lease_seconds)
            if started >= self._expire_after:
                expire_leases(self._database, self._settings.max_attempts)
            # They train elsewhere, and must first find the service again that was away.
            if started >= self._loggers_after:
                expire_leases(self._database, self._settings.max_attempts, of_loggers=True)
            waiting = self._waiting()
        except Exception:
            self._expire_after = time.monotonic() + self._settings.lease_seconds
            self._loggers_after = time.monotonic() + self._settings.logger_seconds
            raise
        self._last_pass = time.monotonic()
        self._tidy(started)
        doorbell.publish_outbox(self._database)
        for queue in waiting:
            self._ring_again(queue)

    def _tidy(self, present: float) -> None:
        """Delete the rows of workers that were killed long ago; see to the line, and to runs."""
        if present < self._forget_at:
            return
        self._forget_at = present + _FORGET_EVERY_SECONDS
        restore_line(self._database)
        catch_up.complete(self._database)
        catch_up.release_held(self._database)
        shorten_waits(self._database, self._settings.lease_seconds)
        with self._database.write() as session:
            workers.forget_silent(session, _FORGOTTEN_AFTER_SECONDS)

    def _waiting(self) -> list[str]:
        """The queues in which a run may start."""
        ready = Job.ready_at.is_not(None), Job.ready_at <= db_now()
        with self._database.read() as session:
            return [
                queue
                for queue in QUEUES
                if session.scalar(select(exists().where(Job.queue == queue, *ready)))
            ]

    def _ring_again(self, queue: str) -> None:
        """A doorbell may have been lost with its worker or its broker: ring now and then."""
        interval = max(2.0, 2 * self._settings.poll_seconds)
        if time.monotonic() - self._last_ring.get(queue, 0.0) >= interval:
            self._last_ring[queue] = time.monotonic()
            doorbell.ring(queue, expires=2 * interval)


def restore_line(database: Database) -> int:
    """Put jobs back in line that workers of an earlier version left out. Returns how many.

    They queue a lost run again, and know nothing of the line.
    """
    forgotten = (
        select(Job.id)
        .where(Job.ready_at.is_(None), Job.status.in_(["queued", "running"]))
        .where(exists().where(Run.job_id == Job.id, Run.status == "queued"))
        .where(Job.max_parallel_runs.is_(None))
        .limit(1000)
    )
    with database.read() as session:
        found = list(session.scalars(forgotten))
    for job_id in found:
        with database.write() as session:
            if (job := jobs.lock(session, job_id)) is not None:
                settle(session, job)
    return len(found)


def expire_leases(database: Database, max_attempts: int, *, of_loggers: bool = False) -> int:
    """Take back every run whose lease has run out, or end those whose loggers fell silent.

    Returns how many.
    """
    own = Run.kind == LOGGED if of_loggers else Run.kind != LOGGED
    expired = and_(Run.lease_expires_at < db_now(), own)
    outcome = _SILENT if of_loggers else _LOST
    taken = _take_back(database, max_attempts, expired, outcome)
    measures.LEASES_EXPIRED.inc(taken)
    return taken


def release(database: Database, slot: str, process: str, max_attempts: int) -> int:
    """Take back what the processes before ``process`` held in its slot: for who knows them dead.

    Their trainers die with them. One that has a moment left writes to its own folder alone, and
    what its worker may still have sent to the database is refused by its attempt's number.
    Returns how many runs there were.
    """
    before = and_(
        Run.lease_owner.contains(f":{slot}:", autoescape=True),
        Run.lease_owner.not_like(f"%:{process}"),
    )
    return _take_back(database, max_attempts, before, _KILLED)


def _take_back(
    database: Database, max_attempts: int, condition: ColumnElement[bool], outcome: Outcome
) -> int:
    expired = Run.status == "running", condition
    with database.read() as session:
        candidates = list(session.execute(select(Run.id, Run.job_id).where(*expired)))
    taken = 0
    for run_id, job_id in candidates:
        with database.write() as session:
            job = jobs.lock(session, job_id)
            # Under the lock, for the worker may have renewed it since we looked.
            run = session.scalar(select(Run).where(Run.id == run_id, *expired).with_for_update())
            if job is None or run is None:
                continue
            log.warning("run %s, attempt %s: %s", run_id, run.attempt, outcome.reason)
            end_attempt(session, job, run, outcome, max_attempts)
            settle(session, job)
            taken += 1
    return taken


def void_leases(database: Database) -> int:
    """Let every lease run out now: for a supervisor that knows no worker is alive."""
    with database.write() as session:
        workers.forget_all(session)
        result = session.execute(
            update(Run)
            .where(Run.status == "running", Run.kind != LOGGED)
            .values(lease_expires_at=0.0)
        )
        return int(result.rowcount)  # type: ignore[attr-defined]
