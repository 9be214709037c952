"""What a supervisor does now and then, in a thread of its own: it may wait for a store."""

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from mlhf_service.audit import service as audit
from mlhf_service.database import Database, now
from mlhf_service.deletions import files, leftovers, orphans
from mlhf_service.errors import StartError
from mlhf_service.keys import logins
from mlhf_service.migrate import require_known
from mlhf_service.retention import service as retention
from mlhf_service.settings import Settings
from mlhf_service.storage.protocol import Storage
from mlhf_service.webhooks import repository as webhooks

log = logging.getLogger(__name__)

_SELDOM_SECONDS, _RARELY_SECONDS = 600.0, 6 * 3600.0
_CHECK_SECONDS = 5.0
_DELIVERIES_KEPT = timedelta(days=30)


class Upkeep:
    """Deletes files that nothing names any more, old records, and what retention rules drop.

    Any number of processes may.
    """

    def __init__(self, settings: Settings, database: Database, storage: Storage) -> None:
        self._settings = settings
        self._database = database
        self._storage = storage
        self._seldom_at = time.monotonic() + _SELDOM_SECONDS
        # Not all supervisors at once: each looks at every file.
        self._rarely_at = time.monotonic() + random.uniform(0.1, 1.0) * _RARELY_SECONDS
        self._check_at = 0.0
        self.outdated: str | None = None  # why this version may no longer work on the database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def pass_once(self) -> None:
        """One pass. What fails is logged, and done by a later pass."""
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + _CHECK_SECONDS
            self._try("schema", self._check_schema)
        self._try("files", lambda: files.drain(self._database, self._storage))
        if time.monotonic() >= self._seldom_at:
            self._seldom_at = time.monotonic() + _SELDOM_SECONDS
            self._try("webhooks", self._forget_deliveries)
            self._try("audit log", self._forget_audit)
            self._try("log-ins", self._forget_logins)
            self._try("retention", self._retain)
        if time.monotonic() >= self._rarely_at:
            self._rarely_at = time.monotonic() + _RARELY_SECONDS
            self._try("orphans", self._sweep)

    def _sweep(self) -> None:
        before = now() - timedelta(seconds=self._settings.orphan_seconds)
        orphans.sweep(self._database, self._storage, before)
        leftovers.sweep(self._database, self._settings)

    def _check_schema(self) -> None:
        """Another process may have migrated the database beyond us while we run."""
        with self._database.engine.connect() as connection:
            try:
                require_known(connection)
            except StartError as error:
                self.outdated = str(error)

    def _retain(self) -> None:
        retention.run_due(self._settings, self._database, self._storage)

    def _forget_deliveries(self) -> None:
        with self._database.write() as session:
            webhooks.forget_old(session, now() - _DELIVERIES_KEPT)

    def _forget_audit(self) -> None:
        with self._database.write() as session:
            audit.forget_old(session, now() - timedelta(self._settings.audit_days))

    def _forget_logins(self) -> None:
        with self._database.write() as session:
            logins.forget_old(session, now())

    def _loop(self) -> None:
        while not self._stop.wait(self._settings.poll_seconds):
            self.pass_once()

    def _try(self, name: str, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:
            log.warning("upkeep of %s failed: %s: %s", name, type(error).__name__, error)
