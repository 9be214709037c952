"""The doorbell: an empty Celery message that makes a worker look at the database."""

import logging
import threading
import time

from sqlalchemy import delete, select

from mlhf_service import tracing
from mlhf_service.database import Database
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.queue.names import DOORBELL, broker_queue

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.05


def ring(queue: str, expires: float = 60.0) -> None:
    """Publish one doorbell for ``queue``. Raises what the broker's client raises."""
    from mlhf_service.queue.celery_app import celery_app  # slow to import: only where one rings

    celery_app.send_task(
        DOORBELL, queue=broker_queue(queue), expires=expires, ignore_result=True, retry=False
    )


def publish_outbox(database: Database) -> int:
    """Ring for every outbox row, then delete the rows. Returns how many there were.

    A crash in between rings twice, which is harmless. No ring is lost.
    """
    with database.read() as session:
        columns = (Outbox.id, Outbox.queue, Outbox.traceparent, Outbox.created_at)
        rows = list(session.execute(select(*columns).limit(1000)))
    if not rows:
        return 0
    began = time.time()
    for queue in sorted({row.queue for row in rows}):
        ring(queue)
    rung = time.time()
    for row in rows:
        if row.traceparent is not None:
            tracing.record("outbox", row.created_at.timestamp(), began, row.traceparent)
            tracing.record("doorbell", began, rung, row.traceparent, queue=row.queue)
    with database.write() as session:
        session.execute(delete(Outbox).where(Outbox.id.in_([row.id for row in rows])))
    return len(rows)


class Doorbell:
    """Publishes the outbox from a thread of its own, so that no request waits for a broker."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="doorbell", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def notify(self) -> None:
        """Signal that the outbox may hold rows. Never blocks, never fails."""
        self._wake.set()

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(_GATHER_SECONDS)  # one ring for many jobs, none against their commits
            self._wake.clear()
            if self._stopping:
                return
            try:
                publish_outbox(self._database)
            except Exception as error:  # the sweeper rings again
                log.warning("doorbell not rung: %s: %s", type(error).__name__, error)
