"""Steps of the database's clock, by which leases and waits are timed."""

import logging
import time
from collections.abc import Callable

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from mlhf_service.database import Database, db_now
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.state import settle
from mlhf_service.queue.finish import MAX_BACKOFF_SECONDS
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import LOGGED

log = logging.getLogger(__name__)


class ClockWatch:
    """Compares the database's clock with one that is never set."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None

    def step(self, session: Session) -> float:
        """By how many seconds the database's clock was set since the last call."""
        offset = float(session.scalar(select(db_now())) or 0.0) - self._monotonic()
        before, self._offset = self._offset, offset
        return 0.0 if before is None else offset - before


def shorten_waits(database: Database, lease_seconds: float) -> int:
    """End leases and back-offs when they would have ended, had the clock not been set back.

    Without that a worker that died before a step by an hour would be missed an hour later.
    Returns how many runs were waiting for longer than any has to.
    """
    latest_lease, latest_start = db_now() + 2 * lease_seconds, db_now() + 2 * MAX_BACKOFF_SECONDS
    # A run that was never started waits for its scheduled start, however late that is.
    too_long = or_(
        (Run.status == "running")
        & (Run.lease_expires_at > latest_lease)
        & (Run.kind != LOGGED),  # theirs is longer
        (Run.status == "queued") & (Run.attempt > 0) & (Run.available_at > latest_start),
    )
    with database.read() as session:
        found = list(session.execute(select(Run.id, Run.job_id).where(too_long)))
    for run_id, job_id in found:
        with database.write() as session:
            job = jobs.lock(session, job_id)
            run = session.scalar(select(Run).where(Run.id == run_id, too_long).with_for_update())
            if job is None or run is None:
                continue
            present = float(session.scalar(select(db_now())) or 0.0)
            if run.status == "running":
                run.lease_expires_at = present + lease_seconds
            else:
                run.available_at = present + MAX_BACKOFF_SECONDS
            settle(session, job)
    if found:
        log.warning("the database's clock was set back: %d runs waited too long", len(found))
    return len(found)
