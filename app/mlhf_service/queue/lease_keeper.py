"""Renew a claim's lease from a thread of its own, whatever else its attempt is at."""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from mlhf_service.database import Database
from mlhf_service.queue.leases import Claim, FencedError, renew

log = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews the lease at each heartbeat, over a connection of its own, until it is stopped.

    Storing a large file, copying a checkpoint or a slow write of the attempt do not delay it.

    Args:
        url: The database's.
        on_lost: Called once, in the thread, where the claim no longer holds.

    Attributes:
        desired: What the user wants of the job, as of the last heartbeat.
    """

    def __init__(
        self,
        url: str,
        claim: Claim,
        lease_seconds: float,
        heartbeat_seconds: float,
        on_lost: Callable[[], None],
    ) -> None:
        self.desired: str | None = None
        self._url = url
        self._claim = claim
        self._lease = lease_seconds
        self._interval = heartbeat_seconds
        self._on_lost = on_lost
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # It may wait for a database that is away; the attempt does not wait for it.
        self._thread.join(timeout=1.0)

    def check(self) -> None:
        """Raise FencedError if the claim was found not to hold."""
        if self._lost:
            raise FencedError(f"run {self._claim.run_id}, attempt {self._claim.attempt}")

    def _keep(self) -> None:
        database = Database(self._url)
        try:
            while not self._stop.wait(self._interval):
                try:
                    self.desired = renew(database, self._claim, self._lease)
                except SQLAlchemyError as error:
                    log.warning("the lease is not renewed: %s", type(error).__name__)
        except FencedError as error:
            if not self._stop.is_set():  # the attempt's own end releases the claim
                log.info("the claim no longer holds: %s", error)
                self._lost = True
                self._on_lost()
        finally:
            database.dispose()
