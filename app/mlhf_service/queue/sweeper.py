"""The sweeper: rings for waiting runs, and expires the leases of workers that have gone."""

import logging
import threading
import time

from sqlalchemy import select, update

from mlhf_service.database import Database, db_now
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.state import settle
from mlhf_service.queue import doorbell
from mlhf_service.queue.finish import Outcome, end_attempt
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings

log = logging.getLogger(__name__)

_LOST = Outcome("lost", {}, "its worker fell silent and the lease ran out")


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
        self._last_pass = time.monotonic()
        self._last_ring: dict[str, float] = {}

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
        if started - self._last_pass > self._settings.lease_seconds / 2:
            self._expire_after = started + self._settings.lease_seconds
        try:
            if started >= self._expire_after:
                expire_leases(self._database, self._settings.max_attempts)
            waiting = self._waiting()
        except Exception:
            self._expire_after = time.monotonic() + self._settings.lease_seconds
            raise
        self._last_pass = time.monotonic()
        doorbell.publish_outbox(self._database)
        for queue in waiting:
            self._ring_again(queue)

    def _waiting(self) -> list[str]:
        with self._database.read() as session:
            ready = Run.status == "queued", Run.available_at <= db_now()
            return list(session.scalars(select(Run.queue).where(*ready).distinct()))

    def _ring_again(self, queue: str) -> None:
        """A doorbell may have been lost with its worker or its broker: ring now and then."""
        interval = max(2.0, 2 * self._settings.poll_seconds)
        if time.monotonic() - self._last_ring.get(queue, 0.0) >= interval:
            self._last_ring[queue] = time.monotonic()
            doorbell.ring(queue, expires=2 * interval)


def expire_leases(database: Database, max_attempts: int) -> int:
    """Take back every run whose lease has run out. Returns how many."""
    expired = Run.status == "running", Run.lease_expires_at < db_now()
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
            log.warning("run %s, attempt %s: lease ran out", run_id, run.attempt)
            end_attempt(session, job, run, _LOST, max_attempts)
            settle(session, job)
            taken += 1
    return taken


def void_leases(database: Database) -> int:
    """Let every lease run out now: for a supervisor that knows no worker is alive."""
    with database.write() as session:
        result = session.execute(
            update(Run).where(Run.status == "running").values(lease_expires_at=0.0)
        )
        return int(result.rowcount)  # type: ignore[attr-defined]
